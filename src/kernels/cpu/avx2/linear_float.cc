// Products with float matrices: each (row, token) has its own eight-lane accumulator, as the
// canonical sum demands; speed comes from several of them at once.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

struct F32Row {
  static constexpr int64_t kBytes = 4;
  static CARAT_INLINE __m256 load(const void* p) {
    return _mm256_loadu_ps(static_cast<const float*>(p));
  }
};
struct F16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE __m256 load(const void* p) { return _mm256_cvtph_ps(load_128(p)); }
};
struct BF16Row {
  static constexpr int64_t kBytes = 2;
  static CARAT_INLINE __m256 load(const void* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16));
  }
};

// The last n < 8 elements of a row, padded with zeros.
template <class Type>
CARAT_INLINE __m256 load_tail(const std::byte* p, int64_t n) {
  alignas(32) std::byte padded[32] = {};
  __builtin_memcpy(padded, p, static_cast<size_t>(n * Type::kBytes));
  return Type::load(padded);
}

// kRows matrix rows (row r at row[r]) times kTokens rows of x.
template <class Type, int kRows, int kTokens>
CARAT_INLINE void tile(const std::byte* const* row, int64_t cols, const float* x, int64_t x_stride,
                       float* y, int64_t y_stride) {
  __m256 acc[kRows][kTokens];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) acc[r][t] = _mm256_setzero_ps();
  }
  int64_t i = 0;
  for (; i + 8 <= cols; i += 8) {
    __m256 xv[kTokens];
    for (int t = 0; t < kTokens; ++t) xv[t] = _mm256_loadu_ps(x + t * x_stride + i);
    for (int r = 0; r < kRows; ++r) {
      const __m256 w = Type::load(row[r] + i * Type::kBytes);
      for (int t = 0; t < kTokens; ++t) acc[r][t] = _mm256_fmadd_ps(xv[t], w, acc[r][t]);
    }
  }
  if (i < cols) {
    const __m256i mask = mask_of(cols - i);
    for (int r = 0; r < kRows; ++r) {
      const __m256 w = load_tail<Type>(row[r] + i * Type::kBytes, cols - i);
      for (int t = 0; t < kTokens; ++t) {
        acc[r][t] = _mm256_fmadd_ps(_mm256_maskload_ps(x + t * x_stride + i, mask), w, acc[r][t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    float* out = y + t * y_stride;
    if constexpr (kRows % 4 == 0) {
      for (int r = 0; r < kRows; r += 4) {
        _mm_storeu_ps(out + r, add_lanes(acc[r][t], acc[r + 1][t], acc[r + 2][t], acc[r + 3][t]));
      }
    } else {
      for (int r = 0; r < kRows; ++r) out[r] = add_lanes(acc[r][t]);
    }
  }
}

// All tokens against kRows rows, three tokens at a time.
template <class Type, int kRows>
CARAT_INLINE void all_tokens(const std::byte* const* row, int64_t cols, const FloatRows& x,
                             float* y, int64_t y_stride) {
  int64_t t = 0;
  for (; t + 3 <= x.n; t += 3) {
    tile<Type, kRows, 3>(row, cols, x.data + t * x.stride, x.stride, y + t * y_stride, y_stride);
  }
  if (x.n - t == 2) {
    tile<Type, kRows, 2>(row, cols, x.data + t * x.stride, x.stride, y + t * y_stride, y_stride);
  } else if (x.n - t == 1) {
    tile<Type, kRows, 1>(row, cols, x.data + t * x.stride, x.stride, y + t * y_stride, y_stride);
  }
}

template <class Type>
CARAT_INLINE void convert_row(const std::byte* row, int64_t cols, float* out) {
  int64_t i = 0;
  for (; i + 8 <= cols; i += 8) _mm256_storeu_ps(out + i, Type::load(row + i * Type::kBytes));
  if (i < cols) {
    _mm256_maskstore_ps(out + i, mask_of(cols - i),
                        load_tail<Type>(row + i * Type::kBytes, cols - i));
  }
}

template <class Type>
CARAT_INLINE void linear_float(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                               float* scratch) {
  constexpr bool kIsFloat = Type::kBytes == 4;
  const std::byte* row[8];
  int64_t o = 0;
  // One token: eight rows hide the latency of the additions.
  for (; x.n == 1 && o + 8 <= w.rows; o += 8) {
    for (int r = 0; r < 8; ++r) row[r] = w.data + (o + r) * w.row_bytes;
    tile<Type, 8, 1>(row, w.cols, x.data, x.stride, y.data + o, y.stride);
  }
  for (; o + 4 <= w.rows; o += 4) {
    for (int r = 0; r < 4; ++r) row[r] = w.data + (o + r) * w.row_bytes;
    if (kIsFloat || x.n <= 3) {
      all_tokens<Type, 4>(row, w.cols, x, y.data + o, y.stride);
      continue;
    }
    for (int r = 0; r < 4; ++r) {
      convert_row<Type>(row[r], w.cols, scratch + r * w.cols);
      row[r] = reinterpret_cast<const std::byte*>(scratch + r * w.cols);
    }
    all_tokens<F32Row, 4>(row, w.cols, x, y.data + o, y.stride);
  }
  for (; o < w.rows; ++o) {
    row[0] = w.data + o * w.row_bytes;
    all_tokens<Type, 1>(row, w.cols, x, y.data + o, y.stride);
  }
}

}  // namespace

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept {
  linear_float<F32Row>(w, x, y, scratch);
}
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept {
  linear_float<F16Row>(w, x, y, scratch);
}
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                 float* scratch) noexcept {
  linear_float<BF16Row>(w, x, y, scratch);
}

}  // namespace carat::kernels::avx2

#endif
