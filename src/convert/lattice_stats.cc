#include "convert/lattice_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "convert/lanes.h"
#include "convert/q4_0_fit.h"
#include "quant/q4_0.h"
#include "quant/scheme.h"

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

// Counts codes by bytes of two: half the counting.
class CodeCounts {
 public:
  void add(const std::byte* block) {
    for (size_t i = sizeof(F16); i < sizeof(quant::BlockQ4_0); ++i) {
      ++pairs_[static_cast<size_t>(block[i])];
    }
  }
  void add_to(LatticeStats& s) const {
    for (size_t b = 0; b < pairs_.size(); ++b) {
      s.codes[b & 15] += pairs_[b];
      s.codes[b >> 4] += pairs_[b];
    }
  }

 private:
  std::array<int64_t, 256> pairs_{};
};

// One block; `out` may be null.
void recover_one(const float* w, Grid grid, std::byte* out, LatticeStats& stats,
                 CodeCounts& codes) {
  Recovered r;
  const bool exact = recover_block(w, grid, &r);
  if (exact) {
    count_rule(r, stats);
    stats.sign_changed_zeros += count_changed_zeros(w, r.block);
  } else {
    const WiderScale wider = r.may_have_wider_scale ? find_wider_scale(w, grid) : WiderScale::kNone;
    stats.needs_bf16_scale += wider == WiderScale::kBF16;
    stats.needs_f32_scale += wider == WiderScale::kF32;
    stats.refused += !q4_0_can_hold(w);
    if (out != nullptr) r.block = fit(w, grid, stats);
  }
  if (!exact && out == nullptr) return;
  std::byte block[sizeof(r.block)];
  std::memcpy(block, &r.block, sizeof(block));
  codes.add(block);
  if (out != nullptr) std::memcpy(out, block, sizeof(block));
}

void decode_block(const std::byte* w, float* out) { quant::decode_row(DType::kBF16, w, out, kN); }

void add_run(const RunCounts& run, int64_t n, LatticeStats& s) {
  s.blocks_on_lattice += n;
  s.weights_bit_exact += n * kN;
  s.signed8 += run.signed8;
  s.absmax7 += run.absmax7;
  s.scale_exact_in_bf16 += run.scale_exact_in_bf16;
  s.sign_changed_zeros += run.sign_changed_zeros;
}

}  // namespace

void recover_blocks(const float* w, int64_t first, int64_t n_blocks, std::optional<Grid> fixed,
                    std::byte* out, LatticeStats& stats) {
  CodeCounts codes;
  for (int64_t i = 0; i < n_blocks; ++i, w += kN) {
    const Grid grid = fixed ? *fixed : grid_of(w, kN);
    recover_one(w, grid, out, stats, codes);
    if ((first + i) % kNaiveStride == 0) count_naive(w, grid, stats);
    if (out != nullptr) out += sizeof(quant::BlockQ4_0);
  }
  stats.blocks += n_blocks;
  stats.weights += n_blocks * kN;
  codes.add_to(stats);
}

void recover_bf16_blocks(const std::byte* w, int64_t first, int64_t n_blocks, std::byte* out,
                         LatticeStats& stats, RecoverRun run) {
  constexpr int64_t kSource = 2 * kN, kTarget = sizeof(quant::BlockQ4_0);
  std::byte spare[kRunBlocks * kTarget];
  float values[kN];
  CodeCounts codes;
  RunCounts counts;
  int64_t n_done = 0;
  for (int64_t i = 0; i < n_blocks; i += kRunBlocks, w += kRunBlocks * kSource) {
    std::byte* const to = out != nullptr ? out + i * kTarget : spare;
    const int64_t n = std::min<int64_t>(kRunBlocks, n_blocks - i);
    const uint32_t done = run != nullptr && n == kRunBlocks ? run(w, to, counts) : 0;
    n_done += std::popcount(done);
    for (int64_t b = 0; b < n; ++b) {
      const bool is_done = (done >> b & 1) != 0;
      const bool sampled = (first + i + b) % kNaiveStride == 0;
      if (is_done) codes.add(to + b * kTarget);
      if (is_done && !sampled) continue;
      decode_block(w + b * kSource, values);
      if (sampled) count_naive(values, Grid::kBF16, stats);
      if (is_done) continue;
      recover_one(values, Grid::kBF16, out != nullptr ? to + b * kTarget : nullptr, stats, codes);
    }
  }
  add_run(counts, n_done, stats);
  stats.blocks += n_blocks;
  stats.weights += n_blocks * kN;
  codes.add_to(stats);
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
