// Products with quantized matrices, eight matrix rows at a time: lane r of every vector belongs to
// row r, so that the integer sums of a block end up where the float accumulators are and no
// horizontal sum is needed.
//
// A Scheme has
//   kBlocks                      blocks of 32 elements that it decodes at once
//   struct Block                 32 elements of eight rows: w[j] holds bytes 4j..4j+3 of each row
//   kBytes                       bytes of a row that hold them
//   decode(rows, b, blocks)      blocks b .. b + kBlocks - 1 of rows[0..7]
//   sum(block, codes, token, b)  the exact integer sums of one token with the eight rows; `codes`
//                                points at the token's 32 codes
// One or a few tokens: each block is decoded and used at once. Many: the blocks of a stretch of
// columns are decoded into a panel in the first-level cache and used by all tokens, four at a time;
// the float accumulators rest in y between stretches, which changes no bit.
#pragma once

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/table.h"

namespace carat::kernels::avx2 {
namespace {

constexpr int kTileRows = 8;
constexpr int kTileTokens = 4;
constexpr int64_t kShortRow = 4096;   // bytes
constexpr int64_t kPanelBlocks = 64;  // 2048 columns

// Eight matrix rows; in the last group of a matrix the missing ones repeat the last.
struct RowGroup {
  const std::byte* row[kTileRows];
  int64_t n;  // real ones
};

CARAT_INLINE RowGroup row_group(const WeightRows& w, int64_t begin) {
  RowGroup g;
  g.n = w.rows - begin < kTileRows ? w.rows - begin : kTileRows;
  for (int r = 0; r < kTileRows; ++r) {
    g.row[r] = w.data + (begin + (r < g.n ? r : g.n - 1)) * w.row_bytes;
  }
  return g;
}

CARAT_INLINE __m256 load_rows(const float* y, int64_t n) {
  return n == kTileRows ? _mm256_loadu_ps(y) : _mm256_maskload_ps(y, mask_of(n));
}
CARAT_INLINE void store_rows(float* y, __m256 v, int64_t n) {
  if (n == kTileRows) {
    _mm256_storeu_ps(y, v);
  } else {
    _mm256_maskstore_ps(y, mask_of(n), v);
  }
}

// 16 bytes of each of eight rows -> out[j], j < 4: bytes 4j..4j+3 of rows 0..7.
CARAT_INLINE void transpose_16(const RowGroup& g, int64_t offset, __m256i* out) {
  const __m256i a = load_2x128(g.row[0] + offset, g.row[4] + offset);
  const __m256i b = load_2x128(g.row[1] + offset, g.row[5] + offset);
  const __m256i c = load_2x128(g.row[2] + offset, g.row[6] + offset);
  const __m256i d = load_2x128(g.row[3] + offset, g.row[7] + offset);
  const __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
  const __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
  out[0] = _mm256_unpacklo_epi64(ab_low, cd_low);
  out[1] = _mm256_unpackhi_epi64(ab_low, cd_low);
  out[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
  out[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
}

// binary16 values at the same offset of eight rows.
CARAT_INLINE __m256 load_scales(const RowGroup& g, int64_t offset) {
  alignas(16) uint16_t bits[kTileRows];
  for (int r = 0; r < kTileRows; ++r) __builtin_memcpy(&bits[r], g.row[r] + offset, 2);
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(bits)));
}

template <class Scheme>
CARAT_INLINE __m256 accumulate(const typename Scheme::Block& block, const QuantizedRows& x,
                               int64_t token, int64_t b, int64_t n_blocks, __m256 acc) {
  const int64_t at = token * n_blocks + b;
  const __m256i sum = Scheme::sum(block, x.codes + at * kActivationBlock, x, at);
  const __m256 scale = _mm256_mul_ps(block.d, _mm256_set1_ps(x.scales[at]));
  return _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), acc);
}

// Asks for what the next group will read while this one works on `length` bytes at `offset` of each
// row: it lies right behind this group, and when rows are short the processor notices its eight
// streams too late. Long rows need no help.
CARAT_INLINE void prefetch_next(const RowGroup& g, int64_t row_bytes, int64_t offset,
                                int64_t length) {
  if (row_bytes > kShortRow) return;
  const std::byte* next = g.row[0] + kTileRows * (row_bytes + offset);
  for (int64_t i = 0; i < kTileRows * length; i += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(next + i), _MM_HINT_T0);
  }
}

// kTokens tokens against rows `g`, all columns, one block at a time.
template <class Scheme, int kTokens>
CARAT_INLINE void direct(const RowGroup& g, int64_t row_bytes, const QuantizedRows& x, float* y,
                         int64_t stride) {
  static_assert(Scheme::kBlocks == 1);
  const int64_t n_blocks = x.cols / kActivationBlock;
  __m256 acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = _mm256_setzero_ps();
  for (int64_t b = 0; b < n_blocks; ++b) {
    typename Scheme::Block block;
    Scheme::decode(g, b, &block);
    prefetch_next(g, row_bytes, b * Scheme::kBytes, Scheme::kBytes);
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = accumulate<Scheme>(block, x, t, b, n_blocks, acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) store_rows(y + t * stride, acc[t], g.n);
}

// The same for decoded blocks [begin, begin + n) of the columns; y holds what came before.
template <class Scheme, int kTokens>
CARAT_INLINE void from_panel(const typename Scheme::Block* panel, int64_t begin, int64_t n,
                             const QuantizedRows& x, int64_t token, float* y, int64_t stride,
                             int64_t rows) {
  const int64_t n_blocks = x.cols / kActivationBlock;
  __m256 acc[kTokens];
  for (int t = 0; t < kTokens; ++t) {
    acc[t] = begin == 0 ? _mm256_setzero_ps() : load_rows(y + (token + t) * stride, rows);
  }
  for (int64_t i = 0; i < n; ++i) {
    const typename Scheme::Block block = panel[i];
    for (int t = 0; t < kTokens; ++t) {
      acc[t] = accumulate<Scheme>(block, x, token + t, begin + i, n_blocks, acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) store_rows(y + (token + t) * stride, acc[t], rows);
}

template <class Scheme>
CARAT_INLINE void few_tokens(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) {
  for (int64_t o = 0; o < w.rows; o += kTileRows) {
    const RowGroup g = row_group(w, o);
    switch (x.n) {
      case 1:
        direct<Scheme, 1>(g, w.row_bytes, x, y.data + o, y.stride);
        break;
      case 2:
        direct<Scheme, 2>(g, w.row_bytes, x, y.data + o, y.stride);
        break;
      case 3:
        direct<Scheme, 3>(g, w.row_bytes, x, y.data + o, y.stride);
        break;
      default:
        direct<Scheme, 4>(g, w.row_bytes, x, y.data + o, y.stride);
        break;
    }
  }
}

template <class Scheme>
CARAT_INLINE void many_tokens(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) {
  const int64_t n_blocks = x.cols / kActivationBlock;
  typename Scheme::Block panel[kPanelBlocks];
  for (int64_t begin = 0; begin < n_blocks; begin += kPanelBlocks) {
    const int64_t n = n_blocks - begin < kPanelBlocks ? n_blocks - begin : kPanelBlocks;
    for (int64_t o = 0; o < w.rows; o += kTileRows) {
      const RowGroup g = row_group(w, o);
      for (int64_t i = 0; i < n; i += Scheme::kBlocks) Scheme::decode(g, begin + i, panel + i);
      float* out = y.data + o;
      int64_t t = 0;
      for (; t + kTileTokens <= x.n; t += kTileTokens) {
        from_panel<Scheme, kTileTokens>(panel, begin, n, x, t, out, y.stride, g.n);
      }
      switch (x.n - t) {
        case 3:
          from_panel<Scheme, 3>(panel, begin, n, x, t, out, y.stride, g.n);
          break;
        case 2:
          from_panel<Scheme, 2>(panel, begin, n, x, t, out, y.stride, g.n);
          break;
        case 1:
          from_panel<Scheme, 1>(panel, begin, n, x, t, out, y.stride, g.n);
          break;
        default:
          break;
      }
    }
  }
}

template <class Scheme>
CARAT_INLINE void linear_quantized(const WeightRows& w, const QuantizedRows& x,
                                   const LinearOutput& y) {
  if (x.n <= kTileTokens) {
    few_tokens<Scheme>(w, x, y);
  } else {
    many_tokens<Scheme>(w, x, y);
  }
}

}  // namespace
}  // namespace carat::kernels::avx2
