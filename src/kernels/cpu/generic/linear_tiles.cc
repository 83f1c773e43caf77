// Products with tiles, written from the canonical sums of ops.h: the oracle of every other table.
#include <cmath>

#include "kernels/cpu/generic/table.h"
#include "kernels/tile_codes.h"

namespace carat::kernels::generic {
namespace {

using enum TileFormat;

// A row's 32 activation codes and what belongs to them.
struct Activation {
  const int8_t* codes;
  float scale;              // dx
  float scaled_sum;         // dx * X
  const int16_t* half_sum;  // X0, X1
};

// One row's 32 weights.
struct Weights32 {
  int8_t code[kTileColumns];

  int32_t dot_half(const int8_t* x, int half) const noexcept {
    int32_t sum = 0;
    for (int c = 16 * half; c < 16 * half + 16; ++c) sum += code[c] * x[c];
    return sum;
  }
  int32_t dot(const int8_t* x) const noexcept { return dot_half(x, 0) + dot_half(x, 1); }
};

// acc after one more block. Largest integers: a half's sum is at most 16 * 128 * 127 < 2^18; times
// two block scales of at most 128 in magnitude it is below 2^26.
template <TileFormat F>
float add_block(const TileSet<F>& set, int64_t r, const Weights32& w, const Activation& x,
                float acc) noexcept {
  if constexpr (F == kQ6_K || F == kQ3_K) {
    const int32_t sum =
        set.i8(0, r) * w.dot_half(x.codes, 0) + set.i8(1, r) * w.dot_half(x.codes, 1);
    return std::fma(set.head_scale(0, r) * x.scale, static_cast<float>(sum), acc);
  } else if constexpr (F == kQ2_K) {
    const int s0 = set.u8(0, r), s1 = set.u8(1, r);
    const int32_t sum = (s0 & 15) * w.dot_half(x.codes, 0) + (s1 & 15) * w.dot_half(x.codes, 1);
    const int32_t low = (s0 >> 4) * x.half_sum[0] + (s1 >> 4) * x.half_sum[1];
    acc = std::fma(set.head_scale(0, r) * x.scale, static_cast<float>(sum), acc);
    return std::fma(-(set.head_scale(1, r) * x.scale), static_cast<float>(low), acc);
  } else {
    const auto sum = static_cast<float>(w.dot(x.codes));
    if constexpr (F == kC2 || F == kC4 || F == kC8) {
      return std::fma(x.scale, sum, acc);
    } else if constexpr (F == kIQ4_XS) {
      return std::fma(set.head_scale(0, r) * static_cast<float>(set.i8(0, r)) * x.scale, sum, acc);
    } else if constexpr (F == kQ4_1 || F == kQ5_1) {
      acc = std::fma(set.head_scale(0, r) * x.scale, sum, acc);
      return std::fma(set.head_scale(1, r), x.scaled_sum, acc);
    } else if constexpr (F == kQ4_K || F == kQ5_K) {
      acc = std::fma(set.head_scale(0, r) * static_cast<float>(set.u8(0, r)) * x.scale, sum, acc);
      const float minimum = set.head_scale(1, r) * static_cast<float>(set.u8(1, r));
      return std::fma(-minimum, x.scaled_sum, acc);
    } else {
      return std::fma(set.head_scale(0, r) * x.scale, sum, acc);
    }
  }
}

// f(tile, first row, rows of it that are real), tile by tile.
template <class Function>
void for_each_tile(const TileRows& w, Function&& f) noexcept {
  for (int64_t o = 0; o < w.rows; o += kTileRows) {
    f(w.data + o / kTileRows * w.tile_bytes, o, w.rows - o < kTileRows ? w.rows - o : kTileRows);
  }
}

template <TileFormat F>
Weights32 weights_of(const TileSet<F>& set, int64_t r) noexcept {
  Weights32 w;
  for (int c = 0; c < kTileColumns; ++c) w.code[c] = static_cast<int8_t>(set.code(r, c));
  return w;
}

template <TileFormat F>
void linear(const TileRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  const int64_t blocks = w.cols / kActivationBlock;
  for_each_tile(w, [&](const std::byte* tile, int64_t o, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t t = 0; t < x.n; ++t) y.data[t * y.stride + o + r] = 0.0f;
      for (int64_t b = 0; b < blocks; ++b) {
        const TileSet<F> set(tile, b);
        const Weights32 weights = weights_of(set, r);
        for (int64_t t = 0; t < x.n; ++t) {
          const int64_t at = t * blocks + b;
          const Activation a = {x.codes + at * kActivationBlock, x.scales[at], x.scaled_sums[at],
                                x.half_sums + 2 * at};
          float& acc = y.data[t * y.stride + o + r];
          acc = add_block(set, r, weights, a, acc);
        }
      }
      if constexpr (F == kC2 || F == kC4 || F == kC8) {
        const float scale = channel_scale(F, tile, w.cols, r);
        for (int64_t t = 0; t < x.n; ++t) y.data[t * y.stride + o + r] *= scale;
      }
    }
  });
}

// |S| of a row is at most 2^16 * 128 * 128 = 2^30.
template <TileFormat F>
void linear_static(const TileRows& w, const StaticRows& x, const LinearOutput& y) noexcept {
  for_each_tile(w, [&](const std::byte* tile, int64_t o, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) {
      const float scale = channel_scale(F, tile, w.cols, r);
      for (int64_t t = 0; t < x.n; ++t) {
        int32_t sum = 0;
        for (int64_t b = 0; b < w.cols / kTileColumns; ++b) {
          sum += weights_of(TileSet<F>(tile, b), r).dot(x.codes + t * w.cols + b * kTileColumns);
        }
        y.data[t * y.stride + o + r] = static_cast<float>(sum) * (scale * x.scales[t]);
      }
    }
  });
}

}  // namespace

const TileLinear kLinearTiles[kTileFormats] = {
    linear<kQ4_0>, linear<kIQ4_NL>, linear<kQ5_0>, linear<kQ8_0>,   linear<kQ4_1>,
    linear<kQ5_1>, linear<kQ4_K>,   linear<kQ5_K>, linear<kIQ4_XS>, linear<kQ6_K>,
    linear<kQ3_K>, linear<kQ2_K>,   linear<kC2>,   linear<kC4>,     linear<kC8>};
const ChannelLinear kLinearChannel[3] = {linear_static<kC2>, linear_static<kC4>,
                                         linear_static<kC8>};

}  // namespace carat::kernels::generic
