#include "model/random_blocks.h"

#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "quant/blocks.h"
#include "quant/k_scales.h"

namespace carat::model {
namespace {

// Standard deviation of codes drawn evenly from n consecutive integers: sqrt((n^2 - 1) / 12).
constexpr float kSpread4 = 1.118f, kSpread16 = 4.61f, kSpread32 = 9.233f;
// Root mean squares: of -4..3, -16..15 and the levels of IQ4; of scales 16..31, 8..15 and 32..63.
constexpr float kSize8 = 2.345f, kSize32 = 9.247f, kSizeIq4 = 67.44f;
constexpr float kScales16 = 23.95f, kScales8 = 11.73f, kScales32 = 48.39f;

F16 half_at(std::byte* at, float v) {
  const F16 half = to_f16(v);
  std::memcpy(at, &half.bits, 2);
  return half;
}

// n random bytes, n a multiple of 4.
void put_random(Rng& rng, void* at, size_t n) {
  auto* bytes = static_cast<std::byte*>(at);
  for (size_t i = 0; i < n; i += 8) {
    const uint64_t word = rng.next();
    std::memcpy(bytes + i, &word, n - i < 8 ? n - i : 8);
  }
}

// A scale of either sign within 20 % of `size`.
float random_scale(Rng& rng, float size) {
  const uint64_t r = rng.next();
  const float magnitude = size * (0.8f + 0.4f * static_cast<float>(r >> 40) * 0x1p-24f);
  return (r & 1) != 0 ? magnitude : -magnitude;
}

// Codes 0..15 stand for -8..7; one element of each block has code 0, as Google's lattice has its
// extremum there.
void q4_0_block(Rng& rng, float deviation, std::byte* out) {
  half_at(out, random_scale(rng, deviation / 4.68f));
  put_random(rng, out + 2, 16);
  out[2 + rng.below(16)] &= std::byte{0xf0};
}

void q8_0_block(Rng& rng, float deviation, std::byte* out) {
  half_at(out, random_scale(rng, deviation / 73.9f));
  put_random(rng, out + 2, 32);
}

// Codes 0..63 stand for -32..31 times a scale of 8..15 and either sign per 16 elements.
void q6_k_block(Rng& rng, float deviation, std::byte* out) {
  put_random(rng, out, 192);
  uint64_t r = rng.next();
  const uint64_t signs = rng.next();
  for (int i = 0; i < 16; ++i, r >>= 4) {
    const int magnitude = 8 + static_cast<int>(r & 7);
    out[192 + i] = static_cast<std::byte>((signs >> i & 1) != 0 ? magnitude : -magnitude);
  }
  half_at(out + 208, deviation / (18.5f * 11.7f));
}

// One scale, then codes: Q5_0, IQ4_NL.
void scaled_block(Rng& rng, float step, size_t bytes, std::byte* out) {
  half_at(out, random_scale(rng, step));
  put_random(rng, out + 2, bytes - 2);
}

// Scale and minimum, then codes whose middle stands for zero: Q4_1, Q5_1.
void affine_block(Rng& rng, float step, float middle, size_t bytes, std::byte* out) {
  const F16 d = half_at(out, random_scale(rng, step));
  half_at(out + 2, -middle * to_float(d));
  put_random(rng, out + 4, bytes - 4);
}

// Q4_K and Q5_K: scales 32..63 and, within one, the same minimums.
template <typename Block>
void k_block(Rng& rng, float step, float middle, std::byte* out) {
  Block block = {};
  put_random(rng, &block, sizeof(block));
  std::memset(block.scales, 0, sizeof(block.scales));
  block.d = to_f16(step / kScales32);
  block.dmin = to_f16(middle * to_float(block.d));
  uint64_t r = rng.next();
  for (int b = 0; b < 8; ++b, r >>= 8) {
    const int scale = 32 + static_cast<int>(r & 31);
    const int more = static_cast<int>(r >> 5 & 1), less = static_cast<int>(r >> 6 & 1);
    const int min = scale + more - less;
    quant::pack_k_scale(block.scales, b, {scale, min < 63 ? min : 63});
  }
  std::memcpy(out, &block, sizeof(block));
}

// Scales 8..15 and, within one, the same minimums.
void q2_k_block(Rng& rng, float deviation, std::byte* out) {
  quant::BlockQ2_K block = {};
  put_random(rng, &block, sizeof(block));
  block.d = to_f16(deviation / (kSpread4 * kScales8));
  block.dmin = to_f16(1.5f * to_float(block.d));
  for (uint8_t& s : block.scales) {
    const int scale = 8 + (s & 7), min = scale + (s >> 3 & 1) - (s >> 4 & 1);
    s = static_cast<uint8_t>(scale | (min < 15 ? min : 15) << 4);
  }
  std::memcpy(out, &block, sizeof(block));
}

// Six bits s with 16 <= |s - 32| <= 31 of either sign: 1..16 or 48..63.
int random_six_bits(uint64_t r) {
  const int magnitude = 16 + static_cast<int>(r & 15);
  return 32 + ((r >> 4 & 1) != 0 ? magnitude : -magnitude);
}

void q3_k_block(Rng& rng, float deviation, std::byte* out) {
  quant::BlockQ3_K block = {};
  put_random(rng, &block, sizeof(block) - 2 - sizeof(block.scales));
  block.d = to_f16(deviation / (kSize8 * kScales16));
  for (int b = 0; b < 16; ++b) {
    const int s = random_six_bits(rng.next());
    block.scales[b % 8] |= static_cast<uint8_t>((s & 15) << (b < 8 ? 0 : 4));
    block.scales[8 + b % 4] |= static_cast<uint8_t>((s >> 4) << (2 * (b / 4)));
  }
  std::memcpy(out, &block, sizeof(block));
}

void iq4_xs_block(Rng& rng, float deviation, std::byte* out) {
  quant::BlockIQ4_XS block = {};
  block.d = to_f16(deviation / (kSizeIq4 * kScales16));
  put_random(rng, block.qs, sizeof(block.qs));
  for (int b = 0; b < 8; ++b) {
    const int s = random_six_bits(rng.next());
    block.scales_l[b / 2] |= static_cast<uint8_t>((s & 15) << (4 * (b % 2)));
    block.scales_h[b / 4] |= static_cast<uint8_t>((s >> 4) << (2 * (b % 4)));
  }
  std::memcpy(out, &block, sizeof(block));
}

}  // namespace

void random_block(DType dtype, Rng& rng, float deviation, std::byte* out) {
  switch (dtype) {
    case DType::kQ4_0:
      return q4_0_block(rng, deviation, out);
    case DType::kQ8_0:
      return q8_0_block(rng, deviation, out);
    case DType::kQ6_K:
      return q6_k_block(rng, deviation, out);
    case DType::kIQ4_NL:
      return scaled_block(rng, deviation / kSizeIq4, sizeof(quant::BlockIQ4_NL), out);
    case DType::kQ5_0:
      return scaled_block(rng, deviation / kSize32, sizeof(quant::BlockQ5_0), out);
    case DType::kQ4_1:
      return affine_block(rng, deviation / kSpread16, 7.5f, sizeof(quant::BlockQ4_1), out);
    case DType::kQ5_1:
      return affine_block(rng, deviation / kSpread32, 15.5f, sizeof(quant::BlockQ5_1), out);
    case DType::kQ2_K:
      return q2_k_block(rng, deviation, out);
    case DType::kQ3_K:
      return q3_k_block(rng, deviation, out);
    case DType::kQ4_K:
      return k_block<quant::BlockQ4_K>(rng, deviation / kSpread16, 7.5f, out);
    case DType::kQ5_K:
      return k_block<quant::BlockQ5_K>(rng, deviation / kSpread32, 15.5f, out);
    case DType::kIQ4_XS:
      return iq4_xs_block(rng, deviation, out);
    default:
      CHECK(false);
  }
}

}  // namespace carat::model
