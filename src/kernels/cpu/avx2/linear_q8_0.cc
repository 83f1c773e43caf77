#if defined(__x86_64__)

#include "kernels/cpu/avx2/linear_tile.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

struct Q8_0 {
  static constexpr int kBlocks = 1;
  static constexpr int64_t kBytes = 34;

  struct Block {
    __m256i w[8];
    __m256 d;
  };

  static CARAT_INLINE void decode(const RowGroup& g, int64_t b, Block* block) {
    transpose_16(g, b * kBytes + 2, block->w);
    transpose_16(g, b * kBytes + 18, block->w + 4);
    block->d = load_scales(g, b * kBytes);
  }

  // |w| times (x with the sign of w): at most 2 * 128 * 127 to an int16 lane, below 2^15.
  static CARAT_INLINE __m256i sum(const Block& block, const int8_t* codes, const QuantizedRows&,
                                  int64_t) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i s = _mm256_setzero_si256();
    for (int j = 0; j < 8; ++j) {
      const __m256i w = block.w[j];
      const __m256i products = _mm256_maddubs_epi16(
          _mm256_abs_epi8(w), _mm256_sign_epi8(broadcast_i32(codes + 4 * j), w));
      s = _mm256_add_epi32(s, _mm256_madd_epi16(products, ones));
    }
    return s;
  }
};

}  // namespace

void linear_q8_0(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  linear_quantized<Q8_0>(w, x, y);
}

}  // namespace carat::kernels::avx2

#endif
