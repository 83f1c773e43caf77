#include "quantize/scale_descent.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "quant/grid.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

constexpr int64_t kBlocks = 64;  // that a thread takes at a time
constexpr double kBeta1 = 0.9, kBeta2 = 0.99;
constexpr double kEpsilon = 1e-12;
// Factors stay in (1 - kRange, 1 + kRange): no scale changes its sign.
constexpr float kRange = 0.9f;

}  // namespace

void ScaleDescent::Factor::step(double gradient, int64_t step, double rate) {
  first = static_cast<float>(kBeta1 * first + (1 - kBeta1) * gradient);
  second = static_cast<float>(kBeta2 * second + (1 - kBeta2) * gradient * gradient);
  const double t = static_cast<double>(step);
  const double mean = first / (1 - std::pow(kBeta1, t));
  const double size = std::sqrt(second / (1 - std::pow(kBeta2, t)));
  const auto moved = static_cast<float>(value - rate * mean / (size + kEpsilon));
  value = std::clamp(moved, 1 - kRange, 1 + kRange);
}

template <class F>
void ScaleDescent::each_block(ThreadPool& pool, F f) const {
  pool.parallel_for(static_cast<int64_t>(factors_.size()), kBlocks,
                    [&](int64_t begin, int64_t end, int) {
                      for (int64_t i = begin; i < end; ++i) f(i);
                    });
}

ScaleDescent::ScaleDescent(DType dtype, std::vector<std::byte> encoded)
    : dtype_(dtype),
      elements_(info(dtype).block_elements),
      bytes_(info(dtype).block_bytes),
      start_(std::move(encoded)),
      factors_(start_.size() / static_cast<size_t>(bytes_)) {
  CHECK(quant::has_grid(dtype));
}

int64_t ScaleDescent::bytes(DType dtype, int64_t encoded) {
  return 2 * encoded + encoded / info(dtype).block_bytes * static_cast<int64_t>(sizeof(Factors));
}

void ScaleDescent::scaled_block(int64_t i, std::byte* out) const {
  std::memcpy(out, start_.data() + i * bytes_, static_cast<size_t>(bytes_));
  const Factors& f = factors_[static_cast<size_t>(i)];
  if (f.d.value == 1 && f.m.value == 1) return;
  quant::BlockScales scales = quant::read_scales(dtype_, out);
  scales.d *= f.d.value;
  scales.m *= f.m.value;
  quant::write_scales(dtype_, scales, out);
}

void ScaleDescent::decode(std::span<float> values, ThreadPool& pool) const {
  CHECK(values.size() == factors_.size() * static_cast<size_t>(elements_));
  each_block(pool, [&](int64_t i) {
    alignas(16) std::byte block[256];
    scaled_block(i, block);
    quant::decode_row(dtype_, block, values.data() + i * elements_, elements_);
  });
}

std::vector<std::byte> ScaleDescent::encode(ThreadPool& pool) const {
  std::vector<std::byte> out(start_.size());
  each_block(pool, [&](int64_t i) { scaled_block(i, out.data() + i * bytes_); });
  return out;
}

void ScaleDescent::step(std::span<const float> gradients, int64_t step, double rate,
                        ThreadPool& pool) {
  CHECK(gradients.size() == factors_.size() * static_cast<size_t>(elements_));
  const bool has_offsets = quant::has_offsets(dtype_);
  each_block(pool, [&](int64_t i) {
    alignas(16) std::byte block[256];
    quant::Grid grid;
    int8_t codes[quant::kSuperBlock];
    scaled_block(i, block);
    quant::read_grid(dtype_, block, grid);
    quant::read_codes(dtype_, block, codes);
    const float* const g = gradients.data() + i * elements_;
    double d = 0, m = 0;
    for (int e = 0; e < elements_; ++e) {
      d += double{g[e]} * (grid.value(e, codes[e]) - grid.offset[e]);
      m += double{g[e]} * grid.offset[e];
    }
    Factors& f = factors_[static_cast<size_t>(i)];
    f.d.step(d, step, rate);
    if (has_offsets) f.m.step(m, step, rate);
  });
}

}  // namespace carat::quantize
