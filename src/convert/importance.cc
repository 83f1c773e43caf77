#include "convert/importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "convert/q4_0_fit.h"
#include "quant/blocks.h"
#include "quant/q4_0.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;

// So little, beside the mean of its matrix, counts a column that the text never used: its weights
// are not thrown away.
constexpr double kLeast = 1e-5;

// The weights of n elements from `begin` on, row after row.
std::vector<float> expand(const SourceTensor& t, int64_t begin, int64_t n) {
  const ColumnWeights& w = *t.column_weights;
  std::vector<float> out(static_cast<size_t>(n));
  for (int64_t i = 0; i < n;) {
    const int64_t row = (begin + i) / t.columns, column = (begin + i) % t.columns;
    const int64_t take = std::min(t.columns - column, n - i);
    const float* const from = w.values.data() + row / w.rows % w.matrices * t.columns + column;
    std::memcpy(&out[static_cast<size_t>(i)], from, static_cast<size_t>(take) * sizeof(float));
    i += take;
  }
  return out;
}

struct BlockError {
  double squared = 0, worst = 0;
  int exact = 0;
};

BlockError error_of(const float* w, Grid grid, const quant::BlockQ4_0& block) {
  float value[kN];
  quant::decode_block_q4_0(block, value);
  BlockError e;
  double largest = 0;
  for (int j = 0; j < kN; ++j) {
    const double d = std::abs(double{value[j]} - w[j]);
    e.squared += d * d;
    e.worst = std::max(e.worst, d);
    largest = std::max(largest, std::abs(double{w[j]}));
    e.exact += round_to_grid(value[j], grid) == w[j];
  }
  e.worst = largest > 0 ? e.worst / largest : 0;
  return e;
}

void count_codes(const quant::BlockQ4_0& block, int64_t n, LatticeStats& s) {
  for (int j = 0; j < kN; ++j) s.codes[static_cast<size_t>(quant::code_of(block, j))] += n;
}

// Blocks off the lattice once more, by weight; `s` is of this piece alone.
void refit_q4_0(const float* values, const float* weights, int64_t n, std::optional<Grid> fixed,
                std::byte* out, LatticeStats& s) {
  s.worst_relative_error = 0;
  for (int64_t i = 0; i < n; i += kN, out += sizeof(quant::BlockQ4_0)) {
    const float* const w = values + i;
    if (!q4_0_can_hold(w)) continue;  // counted as refused
    const Grid grid = fixed ? *fixed : grid_of(w, kN);
    quant::BlockQ4_0 block;
    std::memcpy(&block, out, sizeof(block));
    const BlockError before = error_of(w, grid, block);
    if (before.exact == kN) continue;
    count_codes(block, -1, s);
    quant::encode_row(DType::kQ4_0, w, out, kN, weights + i);
    std::memcpy(&block, out, sizeof(block));
    count_codes(block, 1, s);
    const BlockError after = error_of(w, grid, block);
    s.weights_bit_exact += after.exact - before.exact;
    s.squared_error += after.squared - before.squared;
    s.worst_relative_error = std::max(s.worst_relative_error, after.worst);
  }
}

}  // namespace

Importance::Importance(const std::string& path) : path_(path), imatrix_(io::read_imatrix(path)) {}

std::shared_ptr<const ColumnWeights> Importance::weights_of(const std::string& name,
                                                            const Shape& shape) const {
  const io::ImatrixEntry* const entry = imatrix_.find(name);
  if (entry == nullptr) return nullptr;
  CHECK(shape.size() >= 2);
  auto w = std::make_shared<ColumnWeights>();
  const int64_t columns = shape.back();
  const int64_t matrices = shape.size() > 2 ? shape[shape.size() - 3] : 1;
  w->rows = shape[shape.size() - 2];
  w->values = entry->means();
  const auto n = static_cast<int64_t>(w->values.size());
  if (n != columns && n != columns * matrices) {
    throw Error({"the importance matrix is another model's",
                 path_,
                 "entry " + name,
                 std::to_string(columns * matrices) + " values",
                 std::to_string(n),
                 {}});
  }
  w->matrices = n / columns;
  for (int64_t m = 0; m < w->matrices; ++m) {
    float* const of = w->values.data() + m * columns;
    double sum = 0;
    for (int64_t c = 0; c < columns; ++c) sum += of[c];
    const double mean = sum > 0 ? sum / static_cast<double>(columns) : 1;
    for (int64_t c = 0; c < columns; ++c) {
      of[c] = static_cast<float>(std::max(of[c] / mean, kLeast));
    }
  }
  return w;
}

void encode_weighted(const SourceTensor& tensor, int64_t begin, const float* values, int64_t n,
                     DType to, bool judge, std::byte* out, Findings& findings) {
  const std::vector<float> weights = expand(tensor, begin, n);
  if (judge || to == DType::kQ4_0) {
    const std::optional<Grid> grid =
        tensor.dtype == DType::kBF16 ? std::optional<Grid>(Grid::kBF16) : std::nullopt;
    LatticeStats stats;
    std::byte* const blocks = to == DType::kQ4_0 ? out : nullptr;
    recover_blocks(values, begin / kN, n / kN, grid, blocks, stats);
    if (blocks != nullptr) {
      refit_q4_0(values, weights.data(), n, grid, blocks, stats);
      findings.weights_bit_exact += stats.weights_bit_exact;
    }
    findings.lattice.add(stats);
    if (blocks != nullptr) return;
  }
  quant::encode_row(to, values, out, n, weights.data());
  std::vector<float> written(static_cast<size_t>(n));
  quant::decode_row(to, out, written.data(), n);
  findings.weights_bit_exact += count_kept(values, written.data(), n);
  findings.error.add(measure_error(values, written.data(), n));
}

}  // namespace carat::convert
