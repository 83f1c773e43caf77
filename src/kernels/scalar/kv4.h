// int4 pages (kv_pages.h): how a vector becomes half bytes, and how they become the bytes of an
// int8 page again. Values are code * scale with scale = max|x| / 120 over the head's vector, so
// that a block of the largest step still has codes on both sides of the largest value.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/kv_pages.h"
#include "kernels/scalar/constants.h"

namespace carat::kernels::scalar {

inline constexpr float kKv4Max = 120.0f;

// Round half to even, for |x| < 2^22.
inline float round_even(float x) noexcept { return x + 12582912.0f - 12582912.0f; }

// The half bytes that stand for the block y [16], |y| <= 120, with a step and a zero, and the sum
// of squared errors, added as a tree. Codes stay between -128 and 127.
inline float kv4_round(const float* y, int step, int zero, uint8_t* halves) noexcept {
  const auto s = static_cast<float>(step), z = static_cast<float>(zero), inverse = 1.0f / s;
  const auto low = static_cast<float>(std::max(0, zero - 128 / step));
  const auto high = static_cast<float>(std::min(15, zero + 127 / step));
  float error[kKv4Block];
  for (int i = 0; i < kKv4Block; ++i) {
    float h = round_even(y[i] * inverse) + z;
    h = h < low ? low : h > high ? high : h;
    const float e = y[i] - s * (h - z);
    halves[i] = static_cast<uint8_t>(h);
    error[i] = e * e;
  }
  for (int n = kKv4Block / 2; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) error[i] += error[i + n];
  }
  return error[0];
}

// The best of six: the step that covers all values and the next finer one, which is often worth
// cutting an extreme value off; for each the zero that fits and its neighbours.
// Of equals the first. Returns the block's byte.
inline uint8_t kv4_fit(const float* y, uint8_t* halves) noexcept {
  float low = 0.0f, high = 0.0f;
  for (int i = 0; i < kKv4Block; ++i) {
    low = y[i] < low ? y[i] : low;
    high = y[i] > high ? y[i] : high;
  }
  const int cover = std::clamp(static_cast<int>(std::ceil((high - low) / 15.0f)), 1, 16);
  float best = std::numeric_limits<float>::infinity();
  uint8_t block = 0;
  for (int step = cover; step >= std::max(1, cover - 1); --step) {
    const int fit = std::min(15, static_cast<int>(round_even(-low / static_cast<float>(step))));
    for (int zero = std::max(0, fit - 1); zero <= std::min(15, fit + 1); ++zero) {
      uint8_t tried[kKv4Block];
      const float error = kv4_round(y, step, zero, tried);
      if (!(error < best)) continue;
      best = error;
      block = static_cast<uint8_t>((step - 1) | zero << 4);
      std::copy_n(tried, kKv4Block, halves);
    }
  }
  return block;
}

// x [n] -> half bytes [dim] and a byte for each block [dim / 16], dim = n rounded up to 32. Returns
// the scale; zeros and numbers that are not finite as in int8 pages. REQUIRES: n <= kMaxHeadDim.
inline float kv4_encode(const float* x, int64_t n, uint8_t* halves, uint8_t* blocks) noexcept {
  const int64_t dim = kv_stored_dim(KvType::kI4, n);
  float y[kMaxHeadDim] = {};
  float max = 0.0f;
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) {
    max = std::fabs(x[i]) > max ? std::fabs(x[i]) : max;
    finite = finite && std::isfinite(x[i]);
  }
  const bool coded = finite && max >= kQuantizeZero;
  const float scale = coded ? max / kKv4Max : 0.0f;
  if (coded) {
    const float inverse = 1.0f / scale;
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse;
  }
  for (int64_t b = 0; b < dim; b += kKv4Block) blocks[b / kKv4Block] = kv4_fit(y + b, halves + b);
  return finite ? scale : std::numeric_limits<float>::quiet_NaN();
}

// Code + 128, modulo 256 for bytes that no encoder wrote.
inline uint8_t kv4_byte(uint8_t half, uint8_t block) noexcept {
  return static_cast<uint8_t>((half - (block >> 4)) * ((block & 15) + 1) + 128);
}

// A head's K of an int4 page as in an int8 page, dim (a multiple of 32) elements of all places.
inline void unpack_k4(const uint8_t* codes, const uint8_t* blocks, int64_t dim,
                      uint8_t* k) noexcept {
  for (int64_t d = 0; d < dim; ++d) {
    const uint8_t* block = blocks + d / kKv4Block * kKvPageTokens;
    for (int64_t i = 0; i < kKvPageTokens; ++i) {
      const uint8_t pair = codes[k_pair_at(d, i)];
      k[k_code_at(d, i)] = kv4_byte(d % 8 < 4 ? pair & 15 : pair >> 4, block[i]);
    }
  }
}

// The same for V.
inline void unpack_v4(const uint8_t* codes, const uint8_t* blocks, int64_t dim,
                      uint8_t* v) noexcept {
  for (int64_t d = 0; d < dim; ++d) {
    const uint8_t* block = blocks + d / kKv4Block * kKvPageTokens;
    for (int64_t i = 0; i < kKvPageTokens; ++i) {
      const uint8_t pair = codes[v_pair_at(d, i)];
      v[v_code_at(d, i)] = kv4_byte(d % 32 < 16 ? pair & 15 : pair >> 4, block[i]);
    }
  }
}

}  // namespace carat::kernels::scalar
