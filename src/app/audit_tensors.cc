#include "app/audit_tensors.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <string>
#include <utility>

#include "app/model_path.h"
#include "app/progress.h"
#include "convert/weight_difference.h"

namespace carat::app {
namespace {

using TensorErrors = std::vector<audit::TensorError>;

TensorErrors measure(const std::string& reference, const std::string& candidate, ThreadPool& pool,
                     const std::atomic<bool>* stop) {
  if (reference == candidate) return {};
  const io::Checkpoint a = open_model_checkpoint(reference), b = open_model_checkpoint(candidate);
  if (!convert::are_same_network(model::config_of(a), model::config_of(b))) {
    fmt::print(stderr, "note: {} has other tensors than {}: they are not compared\n", candidate,
               reference);
    return {};
  }
  Progress progress("weights");
  convert::WeightDifferenceHooks hooks{
      .progress = [&](int64_t done, int64_t total) { progress.update(done, total, candidate); },
      .stop = stop};
  TensorErrors errors;
  for (const auto& d : convert::measure_weight_differences(a, b, pool, hooks)) {
    errors.push_back({.name = d.name,
                      .type = name_of(d.dtype),
                      .layer = d.layer,
                      .weights = d.weights,
                      .bytes = d.bytes,
                      .relative_error = d.relative_rms,
                      .max_error = d.largest});
  }
  return errors;
}

}  // namespace

void add_tensor_errors(const std::vector<ModelSpec>& references,
                       const std::vector<ModelSpec>& candidates, audit::AuditReport& report,
                       ThreadPool& pool, const std::atomic<bool>* stop) {
  // The same file may be several candidates, with other types of keys and values.
  std::map<std::pair<std::string, std::string>, TensorErrors> found;
  for (audit::Comparison& c : report.comparisons) {
    const std::string& reference = references[c.reference].path;
    const std::string& candidate = candidates[c.candidate].path;
    const auto [at, is_new] = found.try_emplace({reference, candidate});
    if (is_new) at->second = measure(reference, candidate, pool, stop);
    c.tensors = at->second;
  }
}

}  // namespace carat::app
