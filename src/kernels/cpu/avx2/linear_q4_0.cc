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

}  // namespace

void linear_q4_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<Q4_0>(w, x, y);
}

}  // namespace carat::kernels::avx2

#endif
