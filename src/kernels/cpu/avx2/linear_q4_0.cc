#if defined(__x86_64__)

#include "kernels/cpu/avx2/linear_tile.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

struct Q4_0 {
  static constexpr int kBlocks = 1;
  static constexpr int64_t kBytes = 18;

  // Codes stay unsigned; 8 times the sum of the activations is taken off at the end.
  struct Block {
    __m256i w[8];
    __m256 d;
  };

  static CARAT_INLINE void decode(const RowGroup& g, int64_t b, Block* block) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i bytes[4];
    transpose_16(g, b * kBytes + 2, bytes);
    for (int j = 0; j < 4; ++j) {
      block->w[j] = _mm256_and_si256(bytes[j], low);
      block->w[j + 4] = _mm256_and_si256(_mm256_srli_epi16(bytes[j], 4), low);
    }
    block->d = load_scales(g, b * kBytes);
  }

  // 16 products of at most 15 * 127 to an int16 lane: below 2^15.
  static CARAT_INLINE __m256i sum(const Block& block, const int8_t* codes, const QuantizedRows& x,
                                  int64_t at) {
    __m256i s = _mm256_maddubs_epi16(block.w[0], broadcast_i32(codes));
    for (int j = 1; j < 8; ++j) {
      s = _mm256_add_epi16(s, _mm256_maddubs_epi16(block.w[j], broadcast_i32(codes + 4 * j)));
    }
    return _mm256_sub_epi32(_mm256_madd_epi16(s, _mm256_set1_epi16(1)),
                            _mm256_set1_epi32(x.sums[at]));
  }
};

// Two blocks are 36 bytes of a row, nine words of four. One token pays for unpacking alone, so the
// pair is transposed as it lies, scales and all, instead of fetching 16 scales one by one. Word 0
// holds the first scale and bytes 0, 1; word 4 bytes 14, 15 and the second scale; words 5 to 8 the
// second block's bytes.
struct Pair {
  __m256i word[9];
  __m256 d[2];
};

CARAT_INLINE Pair load_pair(const RowGroup& g, int64_t offset) {
  Pair p;
  transpose_16(g, offset, p.word);
  transpose_16(g, offset + 16, p.word + 4);
  __m256i last[4];  // only the last word is used, so only it is computed
  transpose_16(g, offset + 20, last);
  p.word[8] = last[3];
  // Both scales of rows 0..3 in the low half, of rows 4..7 in the high half; then by block.
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  __m256i scales = _mm256_blend_epi16(p.word[0], p.word[4], 0xaa);
  scales = _mm256_shuffle_epi8(scales, _mm256_broadcastsi128_si256(order));
  scales = _mm256_permute4x64_epi64(scales, 0xd8);
  p.d[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(scales));
  p.d[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(scales, 1));
  return p;
}

// Adds the products of both nibbles of four bytes with the codes that belong to them.
CARAT_INLINE __m256i add_products(__m256i sum, __m256i bytes, __m256i low_codes,
                                  __m256i high_codes) {
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(bytes, mask);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  return _mm256_add_epi16(sum, _mm256_add_epi16(_mm256_maddubs_epi16(low, low_codes),
                                                _mm256_maddubs_epi16(high, high_codes)));
}

CARAT_INLINE __m256i broadcast_i16(const int8_t* p) {
  int16_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return _mm256_set1_epi16(v);
}

CARAT_INLINE __m256 finish_block(__m256i sum, __m256 d, const QuantizedRows& x, int64_t b,
                                 __m256 acc) {
  const __m256i exact =
      _mm256_sub_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), _mm256_set1_epi32(x.sums[b]));
  return _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(x.scales[b])), _mm256_cvtepi32_ps(exact),
                         acc);
}

CARAT_INLINE void one_token(const RowGroup& g, int64_t row_bytes, const QuantizedRows& x,
                            float* y) {
  const int64_t n_blocks = x.cols / kActivationBlock;
  __m256 acc = _mm256_setzero_ps();
  int64_t b = 0;
  for (; b + 2 <= n_blocks; b += 2) {
    const Pair p = load_pair(g, b * Q4_0::kBytes);
    prefetch_next(g, row_bytes, b * Q4_0::kBytes, 2 * Q4_0::kBytes);
    const int8_t* c = x.codes + b * kActivationBlock;
    // Bytes 14, 15, 0, 1 of the first block.
    const __m256i middle = broadcast_i32(c + 14);  // codes 14 to 17
    __m256i sum =
        add_products(_mm256_setzero_si256(), _mm256_blend_epi16(p.word[4], p.word[0], 0xaa),
                     _mm256_blend_epi16(middle, broadcast_i16(c), 0xaa),
                     _mm256_blend_epi16(broadcast_i16(c + 30), middle, 0xaa));
    for (int j = 1; j < 4; ++j) {
      sum =
          add_products(sum, p.word[j], broadcast_i32(c + 4 * j - 2), broadcast_i32(c + 4 * j + 14));
    }
    acc = finish_block(sum, p.d[0], x, b, acc);

    c += kActivationBlock;
    sum = _mm256_setzero_si256();
    for (int j = 0; j < 4; ++j) {
      sum =
          add_products(sum, p.word[5 + j], broadcast_i32(c + 4 * j), broadcast_i32(c + 4 * j + 16));
    }
    acc = finish_block(sum, p.d[1], x, b + 1, acc);
  }
  if (b < n_blocks) {
    Q4_0::Block block;
    Q4_0::decode(g, b, &block);
    acc = accumulate<Q4_0>(block, x, 0, b, n_blocks, acc);
  }
  store_rows(y, acc, g.n);
}

}  // namespace

void linear_q4_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  if (x.n > 1) return linear_quantized<Q4_0>(w, x, y);
  for (int64_t o = 0; o < w.rows; o += kTileRows) {
    one_token(row_group(w, o), w.row_bytes, x, y.data + o);
  }
}

}  // namespace carat::kernels::avx2

#endif
