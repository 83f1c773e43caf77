#include "quant/q6_k.h"

#include <cmath>
#include <cstring>

#include "quant/codes.h"

namespace carat::quant {
namespace {

constexpr int kSub = 16;  // elements of a sub-block, and sub-blocks of a block

// Codes -32..31 and scales of a whole block, before packing.
struct Draft {
  float d = 0.0f;  // exactly a binary16 value
  int scale[kSub] = {};
  int8_t code[kSuperBlock] = {};
  double error = 0.0;  // sum of squared differences
};

// Four elements at a time, in the vector type that GCC and Clang have on every machine: the search
// below is the slowest part of converting a model.
using Lanes = float __attribute__((vector_size(16)));
constexpr int kLanes = 4;

Lanes load(const float* x) noexcept {
  Lanes v;
  std::memcpy(&v, x, sizeof(v));
  return v;
}

Lanes all(float x) noexcept { return Lanes{x, x, x, x}; }

float sum_of(Lanes v) noexcept { return (v[0] + v[2]) + (v[1] + v[3]); }

// Nearest integers in [-32, 31], halves to even, as floats: adding 1.5 * 2^23 leaves no room for a
// fraction. NaN gives -32.
Lanes nearest_codes(Lanes v) noexcept {
  const Lanes lo = all(-32.0f), hi = all(31.0f), magic = all(12582912.0f);
  v = v > lo ? v : lo;
  v = v < hi ? v : hi;
  return (v + magic) - magic;
}

// Squared error of 16 elements coded with step s.
float coding_error(const float* x, float s) noexcept {
  const float inverse = s != 0.0f ? 1.0f / s : 0.0f;
  Lanes error = {};
  for (int i = 0; i < kSub; i += kLanes) {
    const Lanes v = load(x + i);
    const Lanes e = v - s * nearest_codes(v * inverse);
    error += e * e;
  }
  return sum_of(error);
}

// The step for 16 elements that loses least, were it stored exactly.
float best_step(const float* x) noexcept {
  const float extremum = signed_extremum(x, kSub);
  if (extremum == 0.0f) return 0.0f;
  float best = 0.0f;
  float best_gain = -1.0f;
  for (int k = -12; k <= 12; ++k) {
    const float inverse = -(32.0f + 0.1f * static_cast<float>(k)) / extremum;
    Lanes xq_lanes = {};
    Lanes qq_lanes = {};
    for (int i = 0; i < kSub; i += kLanes) {
      const Lanes v = load(x + i);
      const Lanes q = nearest_codes(v * inverse);
      xq_lanes += v * q;
      qq_lanes += q * q;
    }
    const float xq = sum_of(xq_lanes);
    const float qq = sum_of(qq_lanes);
    // With the least-squares step xq / qq the error is sum x^2 - xq^2 / qq.
    if (qq > 0.0f && xq * xq > best_gain * qq) {
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return best;
}

// Scales, codes and error for a given d and wanted steps.
void fill(const float* x, const float* steps, Draft& draft) noexcept {
  draft.error = 0.0;
  for (int b = 0; b < kSub; ++b) {
    const float* xb = x + kSub * b;
    const int around = draft.d != 0.0f ? round_clamped(steps[b] / draft.d, -128, 127) : 0;
    float best_error = 0.0f;
    bool first = true;
    for (int s = around - 1; s <= around + 1; ++s) {
      if (s < -128 || s > 127) continue;
      const float e = coding_error(xb, draft.d * static_cast<float>(s));
      if (first || e < best_error) {
        draft.scale[b] = s;
        best_error = e;
        first = false;
      }
    }
    draft.error += best_error;
    const float step = draft.d * static_cast<float>(draft.scale[b]);
    const float inverse = step != 0.0f ? 1.0f / step : 0.0f;
    for (int i = 0; i < kSub; i += kLanes) {
      const Lanes q = nearest_codes(load(xb + i) * inverse);
      for (int l = 0; l < kLanes; ++l) {
        draft.code[kSub * b + i + l] = static_cast<int8_t>(q[l]);
      }
    }
  }
}

// The d that loses least with the draft's scales and codes.
float refit(const float* x, const Draft& draft) noexcept {
  double xq = 0.0;
  double qq = 0.0;
  for (int e = 0; e < kSuperBlock; ++e) {
    const double q = static_cast<double>(draft.scale[e / kSub]) * draft.code[e];
    xq += q * x[e];
    qq += q * q;
  }
  return qq > 0.0 ? static_cast<float>(xq / qq) : draft.d;
}

// d such that the largest step gets scale -128, all of that range being usable only there.
Draft draft_from_steps(const float* x, const float* steps, int refits) noexcept {
  Draft best;
  best.d = to_float(to_f16(signed_extremum(steps, kSub) / -128.0f));
  fill(x, steps, best);
  for (int i = 0; i < refits; ++i) {
    Draft next;
    next.d = to_float(to_f16(refit(x, best)));
    if (next.d == best.d) break;
    fill(x, steps, next);
    if (!(next.error < best.error)) break;
    best = next;
  }
  return best;
}

BlockQ6_K pack(const Draft& draft) noexcept {
  BlockQ6_K block = {};
  block.d = to_f16(draft.d);
  for (int b = 0; b < kSub; ++b) block.scales[b] = static_cast<int8_t>(draft.scale[b]);
  for (int e = 0; e < kSuperBlock; ++e) {
    const int h = e / 128, k = e % 128 / 32, l = e % 32;
    const int n = draft.code[e] + 32;
    block.ql[64 * h + 32 * (k % 2) + l] |= static_cast<uint8_t>((n & 15) << (k < 2 ? 0 : 4));
    block.qh[32 * h + l] |= static_cast<uint8_t>((n >> 4) << (2 * k));
  }
  return block;
}

}  // namespace

BlockQ6_K encode_block_q6_k(const float* x) noexcept {
  float searched[kSub];
  float plain[kSub];
  for (int b = 0; b < kSub; ++b) {
    searched[b] = best_step(x + kSub * b);
    plain[b] = signed_extremum(x + kSub * b, kSub) / -32.0f;
  }
  // Rounding the scales can undo what the search won, so the plain rule stays a candidate.
  const Draft a = draft_from_steps(x, searched, 2);
  const Draft b = draft_from_steps(x, plain, 0);
  return pack(b.error < a.error ? b : a);
}

void decode_block_q6_k(const BlockQ6_K& block, float* out) noexcept {
  const float d = to_float(block.d);
  for (int e = 0; e < kSuperBlock; ++e) {
    const float step = d * static_cast<float>(block.scales[e / kSub]);
    out[e] = step * static_cast<float>(code_of(block, e) - 32);
  }
}

void encode_q6_k(const float* x, std::byte* row, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kSuperBlock, row += sizeof(BlockQ6_K)) {
    const BlockQ6_K block = encode_block_q6_k(x + i);
    std::memcpy(row, &block, sizeof(block));
  }
}

void decode_q6_k(const std::byte* row, float* out, int64_t n) noexcept {
  for (int64_t i = 0; i < n; i += kSuperBlock, row += sizeof(BlockQ6_K)) {
    BlockQ6_K block;
    std::memcpy(&block, row, sizeof(block));
    decode_block_q6_k(block, out + i);
  }
}

}  // namespace carat::quant
