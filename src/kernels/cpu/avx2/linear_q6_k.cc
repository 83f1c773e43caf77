#if defined(__x86_64__)

#include "kernels/cpu/avx2/linear_tile.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

struct Q6_K {
  static constexpr int kBlocks = 8;  // a super-block
  static constexpr int64_t kSuperBytes = 210;
  static constexpr int64_t kHighBits = 128, kScales = 192, kScale = 208;  // byte offsets

  struct Block {
    __m256i w[8];        // codes 0..63
    __m256i scale[2];    // int16 pairs: the scale of each half of the block, twice
    __m256i correction;  // int16 pairs: 32 * scale of the first half, of the second
    __m256 d;
  };

  // Bytes p, q of every 32-bit lane as the high bytes of its two int16.
  static CARAT_INLINE __m256i pick(__m256i v, int p, int q) {
    const auto lane = [&](int base) {
      return static_cast<int32_t>(0x00800080u | static_cast<uint32_t>(base + p) << 8 |
                                  static_cast<uint32_t>(base + q) << 24);
    };
    const __m128i mask = _mm_setr_epi32(lane(0), lane(4), lane(8), lane(12));
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(mask));
  }

  static CARAT_INLINE void decode_scales(const RowGroup& g, int64_t at, Block* block) {
    const __m256 d = load_scales(g, at + kScale);
    __m256i bytes[4];
    transpose_16(g, at + kScales, bytes);
    for (int b = 0; b < kBlocks; ++b) {
      const __m256i v = bytes[b / 2];
      const int p = b % 2 * 2;
      block[b].scale[0] = _mm256_srai_epi16(pick(v, p, p), 8);
      block[b].scale[1] = _mm256_srai_epi16(pick(v, p + 1, p + 1), 8);
      block[b].correction = _mm256_srai_epi16(pick(v, p, p + 1), 3);
      block[b].d = d;
    }
  }

  static CARAT_INLINE void decode(const RowGroup& g, int64_t b, Block* block) {
    const __m256i low4 = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(0x30);
    const int64_t at = b / kBlocks * kSuperBytes;
    decode_scales(g, at, block);
    for (int half = 0; half < 2; ++half) {
      for (int part = 0; part < 2; ++part) {  // 16 lanes of a pass
        __m256i even[4], odd[4], high[4];
        transpose_16(g, at + 64 * half + 16 * part, even);
        transpose_16(g, at + 64 * half + 32 + 16 * part, odd);
        transpose_16(g, at + kHighBits + 32 * half + 16 * part, high);
        Block* pass = block + 4 * half;
        for (int j = 0; j < 4; ++j) {
          const int i = 4 * part + j;
          const __m256i h0 = _mm256_and_si256(_mm256_slli_epi16(high[j], 4), bits45);
          const __m256i h1 = _mm256_and_si256(_mm256_slli_epi16(high[j], 2), bits45);
          const __m256i h2 = _mm256_and_si256(high[j], bits45);
          const __m256i h3 = _mm256_and_si256(_mm256_srli_epi16(high[j], 2), bits45);
          const __m256i even_high = _mm256_and_si256(_mm256_srli_epi16(even[j], 4), low4);
          const __m256i odd_high = _mm256_and_si256(_mm256_srli_epi16(odd[j], 4), low4);
          pass[0].w[i] = _mm256_or_si256(_mm256_and_si256(even[j], low4), h0);
          pass[1].w[i] = _mm256_or_si256(_mm256_and_si256(odd[j], low4), h1);
          pass[2].w[i] = _mm256_or_si256(even_high, h2);
          pass[3].w[i] = _mm256_or_si256(odd_high, h3);
        }
      }
    }
  }

  // Eight products of at most 63 * 127 to an int16 lane, below 2^15, twice for each half.
  static CARAT_INLINE __m256i sum(const Block& block, const int8_t* codes, const QuantizedRows& x,
                                  int64_t at) {
    __m256i s = _mm256_setzero_si256();
    for (int j = 0; j < 8; j += 2) {
      const __m256i a = _mm256_maddubs_epi16(block.w[j], broadcast_i32(codes + 4 * j));
      const __m256i b = _mm256_maddubs_epi16(block.w[j + 1], broadcast_i32(codes + 4 * j + 4));
      s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_add_epi16(a, b), block.scale[j / 4]));
    }
    const __m256i half_sums = broadcast_i32(x.half_sums + 2 * at);
    return _mm256_sub_epi32(s, _mm256_madd_epi16(block.correction, half_sums));
  }
};

}  // namespace

void linear_q6_k(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<Q6_K>(w, x, y);
}

}  // namespace carat::kernels::avx2

#endif
