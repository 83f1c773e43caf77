#if defined(__x86_64__)

#include "kernels/cpu/avx2/linear_tile.h"
#include "kernels/cpu/avx2/table.h"

namespace carat::kernels::avx2 {
namespace {

struct Q6_K {
  static constexpr int kBlocks = 8;  // a super-block
  static constexpr int64_t kBytes = 210;
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

  // Half of 128 elements, part of 16 lanes of each of its four passes: packed bits of eight rows.
  struct Packed {
    __m256i even[4], odd[4], high[4];
  };
  static CARAT_INLINE Packed load(const RowGroup& g, int64_t at, int half, int part) {
    Packed p;
    transpose_16(g, at + 64 * half + 16 * part, p.even);
    transpose_16(g, at + 64 * half + 32 + 16 * part, p.odd);
    transpose_16(g, at + kHighBits + 32 * half + 16 * part, p.high);
    return p;
  }
  // Codes of bytes 4j..4j+3 of the part in one pass.
  static CARAT_INLINE __m256i codes_of(const Packed& p, int pass, int j) {
    const __m256i low4 = _mm256_set1_epi8(15), bits45 = _mm256_set1_epi8(0x30);
    const __m256i nibbles = pass % 2 ? p.odd[j] : p.even[j];
    const __m256i low = _mm256_and_si256(pass < 2 ? nibbles : _mm256_srli_epi16(nibbles, 4), low4);
    const __m256i shifted = pass == 0   ? _mm256_slli_epi16(p.high[j], 4)
                            : pass == 1 ? _mm256_slli_epi16(p.high[j], 2)
                            : pass == 2 ? p.high[j]
                                        : _mm256_srli_epi16(p.high[j], 2);
    return _mm256_or_si256(low, _mm256_and_si256(shifted, bits45));
  }

  static CARAT_INLINE void decode(const RowGroup& g, int64_t b, Block* block) {
    const int64_t at = b / kBlocks * kBytes;
    decode_scales(g, at, block);
    for (int half = 0; half < 2; ++half) {
      for (int part = 0; part < 2; ++part) {
        const Packed packed = load(g, at, half, part);
        for (int pass = 0; pass < 4; ++pass) {
          for (int j = 0; j < 4; ++j) {
            block[4 * half + pass].w[4 * part + j] = codes_of(packed, pass, j);
          }
        }
      }
    }
  }

  // 16 elements of a block: products of at most 63 * 127 to an int16 lane, below 2^15, twice.
  static CARAT_INLINE __m256i part_sum(const __m256i* w, const int8_t* codes, __m256i scale) {
    __m256i p[4];
    for (int j = 0; j < 4; ++j) p[j] = _mm256_maddubs_epi16(w[j], broadcast_i32(codes + 4 * j));
    return _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(p[0], p[1]), scale),
                            _mm256_madd_epi16(_mm256_add_epi16(p[2], p[3]), scale));
  }
  static CARAT_INLINE __m256i correction(const Block& block, const QuantizedRows& x, int64_t at) {
    return _mm256_madd_epi16(block.correction, broadcast_i32(x.half_sums + 2 * at));
  }
  static CARAT_INLINE __m256i sum(const Block& block, const int8_t* codes, const QuantizedRows& x,
                                  int64_t at) {
    const __m256i s = _mm256_add_epi32(part_sum(block.w, codes, block.scale[0]),
                                       part_sum(block.w + 4, codes + 16, block.scale[1]));
    return _mm256_sub_epi32(s, correction(block, x, at));
  }
};

// One token: each part is used as soon as it is unpacked, so the codes never leave the registers.
CARAT_INLINE void one_token(const RowGroup& g, int64_t row_bytes, const QuantizedRows& x,
                            float* y) {
  constexpr int kPasses = 4;
  __m256 acc = _mm256_setzero_ps();
  for (int64_t b = 0; b < x.cols / kActivationBlock; b += Q6_K::kBlocks) {
    const int64_t at = b / Q6_K::kBlocks * Q6_K::kBytes;
    prefetch_next(g, row_bytes, at, Q6_K::kBytes);
    Q6_K::Block block[Q6_K::kBlocks];  // scales only
    Q6_K::decode_scales(g, at, block);
    for (int half = 0; half < 2; ++half) {
      const int64_t first = b + kPasses * half;
      __m256i sum[kPasses];
      for (int pass = 0; pass < kPasses; ++pass) {
        sum[pass] = Q6_K::correction(block[kPasses * half + pass], x, first + pass);
        sum[pass] = _mm256_sub_epi32(_mm256_setzero_si256(), sum[pass]);
      }
      for (int part = 0; part < 2; ++part) {
        const Q6_K::Packed packed = Q6_K::load(g, at, half, part);
        for (int pass = 0; pass < kPasses; ++pass) {
          __m256i w[4];
          for (int j = 0; j < 4; ++j) w[j] = Q6_K::codes_of(packed, pass, j);
          const int8_t* codes = x.codes + (first + pass) * kActivationBlock + 16 * part;
          const __m256i scale = block[kPasses * half + pass].scale[part];
          sum[pass] = _mm256_add_epi32(sum[pass], Q6_K::part_sum(w, codes, scale));
        }
      }
      for (int pass = 0; pass < kPasses; ++pass) {
        const __m256 scale = _mm256_mul_ps(block[0].d, _mm256_set1_ps(x.scales[first + pass]));
        acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum[pass]), acc);
      }
    }
  }
  store_rows(y, acc, g.n);
}

}  // namespace

void linear_q6_k(const WeightRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  if (x.n > 1) return many_tokens<Q6_K>(w, x, y);
  for (int64_t o = 0; o < w.rows; o += kTileRows) {
    one_token(row_group(w, o), w.row_bytes, x, y.data + o);
  }
}

}  // namespace carat::kernels::avx2

#endif
