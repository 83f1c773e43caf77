#include "convert/lattice_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "convert/lanes.h"
#include "convert/q4_0_fit.h"
#include "quant/q4_0.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;
constexpr int64_t kNaiveStride = 16;

int count_exact(const float* w, const float* value, Grid grid) noexcept {
  int n = 0;
  for (int j = 0; j < kN; ++j) n += round_to_grid(value[j], grid) == w[j];
  return n;
}

// A product with a zero code is zero with the sign of d.
int count_changed_zeros(const float* w, const quant::BlockQ4_0& block) noexcept {
  const uint32_t other = (static_cast<uint32_t>(block.d.bits & 0x8000u) << 16) ^ 0x80000000u;
  const Ints changed = all(std::bit_cast<int32_t>(other));
  Ints n = all(0);
  for (int j = 0; j < kN; j += kLanes) n -= load<Ints>(w + j) == changed;
  return (n[0] + n[1]) + (n[2] + n[3]);
}

void count_rule(const Recovered& r, LatticeStats& s) noexcept {
  ++s.blocks_on_lattice;
  s.weights_bit_exact += kN;
  s.scale_exact_in_bf16 += r.scale_exact_in_bf16;
  s.zero += r.rule == Rule::kZero;
  s.signed8 += r.rule == Rule::kSigned8;
  s.absmax7 += r.rule == Rule::kAbsmax7;
  s.other_peak += r.rule == Rule::kOther;
}

// Fits a block off the lattice and measures what that costs.
quant::BlockQ4_0 fit(const float* w, Grid grid, LatticeStats& s) noexcept {
  quant::BlockQ4_0 block = {};
  if (!fit_block_q4_0(w, &block)) return {};
  float value[kN];
  quant::decode_block_q4_0(block, value);
  s.weights_bit_exact += count_exact(w, value, grid);
  double largest = 0, worst = 0;
  for (int j = 0; j < kN; ++j) {
    largest = std::max(largest, std::abs(static_cast<double>(w[j])));
    worst = std::max(worst, std::abs(static_cast<double>(value[j]) - w[j]));
    s.squared_weights += static_cast<double>(w[j]) * w[j];
  }
  s.squared_error += squared_error(w, block);
  s.worst_relative_error = std::max(s.worst_relative_error, worst / largest);
  return block;
}

void count_naive(const float* w, Grid grid, LatticeStats& s) noexcept {
  float value[kN];
  quant::decode_block_q4_0(quant::encode_block_q4_0(w), value);
  s.naive_weights += kN;
  s.naive_weights_bit_exact += count_exact(w, value, grid);
}

}  // namespace

void recover_blocks(const float* w, int64_t first, int64_t n_blocks, std::optional<Grid> fixed,
                    std::byte* out, LatticeStats& stats) {
  uint32_t pairs[256] = {};  // by byte of two codes: half the counting
  int64_t pending = 0;
  const auto flush = [&] {
    for (int b = 0; b < 256; ++b) {
      stats.codes[b & 15] += pairs[b];
      stats.codes[b >> 4] += pairs[b];
      pairs[b] = 0;
    }
    pending = 0;
  };
  for (int64_t i = 0; i < n_blocks; ++i, w += kN) {
    Recovered r;
    const Grid grid = fixed ? *fixed : grid_of(w, kN);
    const bool exact = recover_block(w, grid, &r);
    ++stats.blocks;
    if (exact) {
      count_rule(r, stats);
      stats.sign_changed_zeros += count_changed_zeros(w, r.block);
    } else {
      const WiderScale wider =
          r.may_have_wider_scale ? find_wider_scale(w, grid) : WiderScale::kNone;
      stats.needs_bf16_scale += wider == WiderScale::kBF16;
      stats.needs_f32_scale += wider == WiderScale::kF32;
      stats.refused += !q4_0_can_hold(w);
      if (out != nullptr) r.block = fit(w, grid, stats);
    }
    if ((first + i) % kNaiveStride == 0) count_naive(w, grid, stats);
    if (exact || out != nullptr) {
      for (uint8_t byte : r.block.qs) ++pairs[byte];
      if (++pending == (int64_t{1} << 27)) flush();
    }
    if (out != nullptr) {
      std::memcpy(out, &r.block, sizeof(r.block));
      out += sizeof(r.block);
    }
  }
  stats.weights += n_blocks * kN;
  flush();
}

void LatticeStats::add(const LatticeStats& o) {
  blocks += o.blocks;
  blocks_on_lattice += o.blocks_on_lattice;
  weights += o.weights;
  weights_bit_exact += o.weights_bit_exact;
  sign_changed_zeros += o.sign_changed_zeros;
  zero += o.zero;
  signed8 += o.signed8;
  absmax7 += o.absmax7;
  other_peak += o.other_peak;
  scale_exact_in_bf16 += o.scale_exact_in_bf16;
  needs_bf16_scale += o.needs_bf16_scale;
  needs_f32_scale += o.needs_f32_scale;
  refused += o.refused;
  worst_relative_error = std::max(worst_relative_error, o.worst_relative_error);
  squared_error += o.squared_error;
  squared_weights += o.squared_weights;
  naive_weights += o.naive_weights;
  naive_weights_bit_exact += o.naive_weights_bit_exact;
  for (size_t c = 0; c < codes.size(); ++c) codes[c] += o.codes[c];
}

Json to_json(const LatticeStats& s) {
  Json j;
  j["blocks"] = s.blocks;
  j["blocks_on_lattice"] = s.blocks_on_lattice;
  j["weights"] = s.weights;
  j["weights_bit_exact"] = s.weights_bit_exact;
  j["sign_changed_zeros"] = s.sign_changed_zeros;
  j["rules"] = {{"zero", s.zero},
                {"signed_extremum_8", s.signed8},
                {"absmax_7", s.absmax7},
                {"other_peak", s.other_peak}};
  j["scale_exact_in_bf16"] = s.scale_exact_in_bf16;
  j["needs_bf16_scale"] = s.needs_bf16_scale;
  j["needs_f32_scale"] = s.needs_f32_scale;
  j["refused"] = s.refused;
  j["worst_relative_error"] = s.worst_relative_error;
  j["relative_rms_error"] =
      s.squared_weights > 0 ? std::sqrt(s.squared_error / s.squared_weights) : 0.0;
  j["naive_weights"] = s.naive_weights;
  j["naive_weights_bit_exact"] = s.naive_weights_bit_exact;
  j["codes"] = s.codes;
  return j;
}

}  // namespace carat::convert
