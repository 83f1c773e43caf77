#include "calibrate/importance.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace carat::calibrate {

SquareSums::SquareSums(const model::Weights& weights, ThreadPool& pool)
    : refs_(weights.refs), sums_(weights.refs.size()), pool_(pool) {}

void SquareSums::observe(const kernels::Weight& w, int64_t matrix, std::span<const float> rows) {
  const int64_t columns = w.cols;
  Sums& sums = sums_[static_cast<size_t>(w.id)];
  if (sums.counts.empty()) {
    sums.counts.resize(static_cast<size_t>(w.count));
    sums.squares.resize(static_cast<size_t>(w.count * columns));
  }
  const int64_t n = static_cast<int64_t>(rows.size()) / columns;
  sums.counts[static_cast<size_t>(matrix)] += n;
  double* const squares = sums.squares.data() + matrix * columns;
  pool_.parallel_for(columns, 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = 0; t < n; ++t) {
      const float* const row = rows.data() + t * columns;
      for (int64_t c = begin; c < end; ++c) squares[c] += double{row[c]} * row[c];
    }
  });
  for (int64_t c = 0; c < columns; ++c) {
    if (std::isfinite(squares[c])) continue;
    throw Error({"the model computes values that are not finite numbers",
                 {},
                 "input of " + model::gguf_name(refs_[static_cast<size_t>(w.id)]),
                 {},
                 {},
                 "the weights may be damaged"});
  }
}

std::vector<io::ImatrixEntry> SquareSums::entries() const {
  std::vector<io::ImatrixEntry> out;
  for (size_t i = 0; i < sums_.size(); ++i) {
    const Sums& sums = sums_[i];
    if (sums.counts.empty()) continue;
    io::ImatrixEntry e;
    e.name = model::gguf_name(refs_[i]);
    // Finite in float too, as the file wants it.
    for (const double s : sums.squares) e.sums.push_back(static_cast<float>(std::min(s, 3e38)));
    for (const int64_t n : sums.counts) e.counts.push_back(static_cast<float>(n));
    out.push_back(std::move(e));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

}  // namespace carat::calibrate
