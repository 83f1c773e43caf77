// Rounding to int8 and to and from binary16.
#if defined(__aarch64__)

#include "kernels/cpu/neon/simd.h"
#include "kernels/cpu/neon/table.h"

namespace carat::kernels::neon {
namespace {

// Eight codes of values that `inverse` brings into -127..127.
CARAT_INLINE int8x8_t codes_of(Eight x, float inverse) {
  const Eight scaled = mul(x, splat(inverse));
  const int16x4_t low = vmovn_s32(vcvtnq_s32_f32(scaled.v[0]));
  const int16x4_t high = vmovn_s32(vcvtnq_s32_f32(scaled.v[1]));
  return vmovn_s16(vcombine_s16(low, high));
}

// scalar::static_level, operation by operation; NaN stays.
CARAT_INLINE float32x4_t static_level(float32x4_t x, float32x4_t scale) {
  const float32x4_t level = vminq_f32(vrndnq_f32(vdivq_f32(x, scale)), vdupq_n_f32(127.0f));
  return vmaxq_f32(level, vdupq_n_f32(-128.0f));
}

}  // namespace

void quantize_rows(const float* rows, const QuantizedRows& x) noexcept {
  const int64_t n_blocks = x.n * (x.cols / kActivationBlock);
  for (int64_t b = 0; b < n_blocks; ++b, rows += kActivationBlock) {
    Eight v[4];
    for (int j = 0; j < 4; ++j) v[j] = load(rows + 8 * j);
    const uint32x4_t most = vmaxq_u32(vmaxq_u32(magnitude(v[0]), magnitude(v[1])),
                                      vmaxq_u32(magnitude(v[2]), magnitude(v[3])));
    const Rounding r = rounding_for(vmaxvq_u32(most), 127.0f);
    int8x8_t codes[4];
    for (int j = 0; j < 4; ++j) {
      codes[j] = r.inverse != 0.0f ? codes_of(v[j], r.inverse) : vdup_n_s8(0);
      vst1_s8(x.codes + b * kActivationBlock + 8 * j, codes[j]);
    }
    const int low = vaddlvq_s8(vcombine_s8(codes[0], codes[1]));
    const int high = vaddlvq_s8(vcombine_s8(codes[2], codes[3]));
    x.scales[b] = r.scale;
    x.half_sums[2 * b] = static_cast<int16_t>(low);
    x.half_sums[2 * b + 1] = static_cast<int16_t>(high);
    x.sums[b] = 8 * (low + high);
    x.scaled_sums[b] = r.scale * static_cast<float>(low + high);
  }
}

void to_i8(const float* x, int64_t n, int8_t* codes, float* scale) noexcept {
  uint32x4_t most = vdupq_n_u32(0);
  for_each_8(n, [&](auto get, auto) { most = vmaxq_u32(most, magnitude(get(x))); });
  const Rounding r = rounding_for(vmaxvq_u32(most), 127.0f);
  *scale = r.scale;
  int64_t i = 0;
  for_each_8(n, [&](auto get, auto) {
    const int8x8_t c = r.inverse != 0.0f ? codes_of(get(x), r.inverse) : vdup_n_s8(0);
    const int64_t length = n - i < 8 ? n - i : 8;
    __builtin_memcpy(codes + i, &c, static_cast<size_t>(length));
    i += 8;
  });
}

float static_codes(const float* x, int64_t n, float scale, int8_t* codes, int32_t* sum) noexcept {
  const float32x4_t s = vdupq_n_f32(scale);
  uint32x4_t numbers = vdupq_n_u32(~0u);
  int32x4_t sums = vdupq_n_s32(0);
  const auto code = [&](float32x4_t v) {
    const float32x4_t level = static_level(v, s);
    numbers = vandq_u32(numbers, vceqq_f32(level, level));
    const int32x4_t c = vcvtnq_s32_f32(level);  // NaN becomes 0
    sums = vaddq_s32(sums, c);
    return vmovn_s32(c);
  };
  int64_t i = 0;
  for_each_8(n, [&](auto get, auto) {
    const Eight v = get(x);
    const int16x4_t low = code(v.v[0]), high = code(v.v[1]);
    const int8x8_t c = vmovn_s16(vcombine_s16(low, high));
    const int64_t length = n - i < 8 ? n - i : 8;
    __builtin_memcpy(codes + i, &c, static_cast<size_t>(length));
    i += 8;
  });
  *sum = vaddvq_s32(sums);
  return vminvq_u32(numbers) != 0 ? scale : __builtin_nanf("");
}

void static_round(const float* x, int64_t n, float scale, float* y) noexcept {
  const float32x4_t s = vdupq_n_f32(scale);
  for_each_8(n, [&](auto get, auto put) {
    const Eight v = get(x);
    put(y, Eight{{vmulq_f32(static_level(v.v[0], s), s), vmulq_f32(static_level(v.v[1], s), s)}});
  });
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  int64_t i = 0;
  for_each_8(n, [&](auto get, auto) {
    const Eight v = get(x);
    const uint16x8_t h = vcombine_u16(vreinterpret_u16_f16(vcvt_f16_f32(v.v[0])),
                                      vreinterpret_u16_f16(vcvt_f16_f32(v.v[1])));
    const int64_t length = n - i < 8 ? n - i : 8;
    __builtin_memcpy(y + i, &h, static_cast<size_t>(length) * sizeof(uint16_t));
    i += 8;
  });
}

void from_f16(const uint16_t* x, int64_t n, float* y) noexcept {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x + i))));
  for (; i < n; ++i) {
    vst1q_lane_f32(y + i, vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(x[i]))), 0);
  }
}

}  // namespace carat::kernels::neon

#endif
