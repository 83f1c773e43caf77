#include "quantize/code_descent.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "quant/grid.h"

namespace carat::quantize {
namespace {

constexpr int64_t kBlocks = 64;  // that a thread takes at a time
// How far inside its cell a weight is put whose code is not the nearest.
constexpr float kEdge = 0.45f;

float signed_step(double gradient, float rate) {
  return gradient > 0 ? -rate : gradient < 0 ? rate : 0.0f;
}

}  // namespace

// A block as it is now.
struct CodeDescent::Block {
  alignas(16) std::byte bytes[256];
  quant::Grid grid;
  int8_t codes[quant::kSuperBlock];
  bool inside[quant::kSuperBlock];  // z + v lies inside the grid

  Block(const CodeDescent& m, int64_t i) {
    CHECK(m.bytes_ <= static_cast<int64_t>(sizeof(bytes)));
    std::memcpy(bytes, m.start_.data() + i * m.bytes_, static_cast<size_t>(m.bytes_));
    quant::read_codes(m.dtype_, bytes, codes);
    const auto at = static_cast<size_t>(i);
    if (m.d_factor_[at] != 1.0f || m.m_factor_[at] != 1.0f) {
      quant::BlockScales scales = quant::read_scales(m.dtype_, bytes);
      scales.d *= m.d_factor_[at];
      scales.m *= m.m_factor_[at];
      quant::write_scales(m.dtype_, scales, bytes);
    }
    quant::read_grid(m.dtype_, bytes, grid);
    const float* const w = m.weights_.data() + i * m.elements_;
    const float* const v = m.v_.data() + i * m.elements_;
    for (int e = 0; e < m.elements_; ++e) {
      inside[e] = false;
      if (grid.step[e] == 0.0f) continue;
      const float z = grid.position(e, w[e]) + v[e];
      inside[e] =
          z > static_cast<float>(grid.lowest) - 0.5f && z < static_cast<float>(grid.highest) + 0.5f;
      codes[e] = static_cast<int8_t>(std::nearbyint(
          std::clamp(z, static_cast<float>(grid.lowest), static_cast<float>(grid.highest))));
    }
  }
};

template <class F>
void CodeDescent::each_block(ThreadPool& pool, F f) const {
  pool.parallel_for(blocks(), kBlocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

CodeDescent::CodeDescent(DType dtype, int64_t columns, std::vector<float> weights,
                         std::vector<std::byte> encoded, float range)
    : dtype_(dtype),
      elements_(info(dtype).block_elements),
      bytes_(info(dtype).block_bytes),
      has_offsets_(quant::has_offsets(dtype)),
      range_(range),
      weights_(std::move(weights)),
      v_(weights_.size(), 0.0f),
      start_(std::move(encoded)) {
  CHECK(columns % elements_ == 0);
  const auto n = static_cast<int64_t>(weights_.size()) / elements_;
  CHECK(static_cast<int64_t>(start_.size()) == n * bytes_);
  d_factor_.assign(static_cast<size_t>(n), 1.0f);
  m_factor_.assign(static_cast<size_t>(n), 1.0f);
  for (int64_t i = 0; i < n; ++i) {
    quant::Grid grid;
    int8_t codes[quant::kSuperBlock];
    quant::read_grid(dtype_, start_.data() + i * bytes_, grid);
    quant::read_codes(dtype_, start_.data() + i * bytes_, codes);
    float* const w = weights_.data() + i * elements_;
    for (int e = 0; e < elements_; ++e) {
      if (grid.step[e] == 0.0f) continue;
      const float away = grid.position(e, w[e]) - static_cast<float>(codes[e]);
      // Beyond the ends of the grid the end is the nearest.
      const bool beyond = codes[e] == grid.highest ? away > 0 : codes[e] == grid.lowest && away < 0;
      if (beyond || std::fabs(away) < 0.499f) continue;
      w[e] = grid.value_at(e, static_cast<float>(codes[e]) + (away > 0 ? kEdge : -kEdge));
    }
  }
}

void CodeDescent::decode(std::span<float> values, ThreadPool& pool) const {
  CHECK(values.size() == weights_.size());
  each_block(pool, [&](int64_t i) {
    const Block b(*this, i);
    float* const to = values.data() + i * elements_;
    for (int e = 0; e < elements_; ++e) to[e] = b.grid.value(e, b.codes[e]);
  });
}

std::vector<std::byte> CodeDescent::encode(ThreadPool& pool) const {
  std::vector<std::byte> out(start_.size());
  each_block(pool, [&](int64_t i) {
    Block b(*this, i);
    quant::write_codes(dtype_, b.codes, b.bytes);
    std::memcpy(out.data() + i * bytes_, b.bytes, static_cast<size_t>(bytes_));
  });
  return out;
}

void CodeDescent::step(std::span<const float> gradients, float rate, float scale_rate,
                       ThreadPool& pool) {
  CHECK(gradients.size() == weights_.size());
  each_block(pool, [&](int64_t i) {
    const Block b(*this, i);
    const float* const g = gradients.data() + i * elements_;
    const float* const w = weights_.data() + i * elements_;
    float* const v = v_.data() + i * elements_;
    double d = 0, m = 0;  // derivatives with respect to the factors
    for (int e = 0; e < elements_; ++e) {
      const float scaled = b.grid.value(e, b.codes[e]) - b.grid.offset[e];
      // Where rounding is passed through, the value follows the weight, whatever the scales are.
      d += double{g[e]} * (b.inside[e] ? scaled - (w[e] - b.grid.offset[e]) : scaled);
      m += b.inside[e] ? 0.0 : double{g[e]} * b.grid.offset[e];
      if (!b.inside[e]) continue;
      const float moved = v[e] + signed_step(double{g[e]} * b.grid.step[e], rate);
      v[e] = std::clamp(moved, -0.5f, 0.5f);
    }
    if (scale_rate == 0) return;
    const auto at = static_cast<size_t>(i);
    d_factor_[at] = std::clamp(d_factor_[at] + signed_step(d, scale_rate), 1 - range_, 1 + range_);
    if (!has_offsets_) return;
    m_factor_[at] = std::clamp(m_factor_[at] + signed_step(m, scale_rate), 1 - range_, 1 + range_);
  });
}

}  // namespace carat::quantize
