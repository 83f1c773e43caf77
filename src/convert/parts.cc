#include "convert/parts.h"

#include <fmt/format.h>

#include <utility>

#include "convert/plan.h"

namespace carat::convert {

bool is_kept_by_bf16(DType dtype, DType scales) {
  return dtype == DType::kQ4_0 || (dtype == DType::kC4 && scales != DType::kF32);
}

void check_rounded(const TensorReport& tensor, DType scales, const ConvertOptions& options,
                   Losses* happened) {
  if (tensor.weights_bit_exact == tensor.weights || tensor.to == DType::kQ4_0) return;
  if (tensor.to == DType::kBF16 && is_kept_by_bf16(tensor.from, scales)) return;
  require_accepted(
      Loss::kRoundedWeights,
      fmt::format("{} of {} weights of {} change", tensor.weights - tensor.weights_bit_exact,
                  tensor.weights, tensor.source_name),
      options, happened);
}

void set_findings(TensorReport& t, const Findings& f) {
  t.weights = f.weights;
  t.weights_bit_exact = f.weights_bit_exact;
  t.error = f.error;
  t.groups = f.groups;
  t.groups_exact = f.groups_exact;
  t.groups_rounded_scale = f.groups_rounded_scale;
  t.lattice = f.lattice;
  t.judged = f.lattice.blocks > 0;
}

void add_tensor(ConvertReport& report, TensorReport tensor, int64_t source_bytes) {
  report.source_bytes += source_bytes;
  report.target_bytes += tensor.bytes;
  if (tensor.is_matrix) {
    ++report.matrices;
    report.matrices_kept += !tensor.note.empty();
    report.weights += tensor.weights;
    report.weights_bit_exact += tensor.weights_bit_exact;
    report.lattice.add(tensor.lattice);
    report.error.add(tensor.error);
  }
  report.tensors.push_back(std::move(tensor));
}

}  // namespace carat::convert
