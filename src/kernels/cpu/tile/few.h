// One to about eight tokens: bound by memory. One stream of loads does not reach the memory's
// speed, so the tiles are split into four parts that are walked side by side, a set of each in
// turn, and what comes next in each is asked for ahead. Codes are unpacked once for all tokens and
// never leave the registers.
#pragma once

#include "kernels/cpu/tile/format.h"

namespace carat::kernels::tile {
namespace {

constexpr int kStreams = 4;
constexpr int64_t kAhead = 4096;  // bytes

// acc[t] += the products of a set with those of T tokens, x_set the place of the first one's.
template <class Isa, TileFormat F, int T>
CARAT_INLINE void add_set(const std::byte* block, const std::byte* p, const QuantizedRows& x,
                          int64_t x_set, typename Isa::Floats* acc) {
  SetScales<Isa, F> scales;
  scales.read(block, p);
  p += Format<F>::kInfo.scale_bytes;
  Token token[T];
  int32_t start[T], half_start[T][2];
  TokenSum<Isa, F, PlainOf<Isa, F>> sum[T];
  unroll<T>([&](auto t) CARAT_LAMBDA {
    const int64_t i = x_set + t * (x.cols / kTileColumns);
    make_starts<Isa, F>(x, i, &start[t], half_start[t]);
    token[t] = {.codes = x.codes + i * kTileColumns,
                .scale = x.scales + i,
                .scaled_sum = x.scaled_sums + i,
                .start = &start[t],
                .half_sums = x.half_sums + 2 * i,
                .half_start = half_start[t]};
    sum[t].begin(token[t]);
  });
  unroll<8>([&](auto k) CARAT_LAMBDA {
    const typename Isa::Codes c = set_codes<Isa, F, vector_of(k)>(p);
    unroll<T>([&](auto t) CARAT_LAMBDA { sum[t].template add<k>(c, token[t].codes, scales); });
  });
  unroll<T>([&](auto t)
                CARAT_LAMBDA { acc[t] = scales.apply(sum[t].finish(scales), token[t], acc[t]); });
}

// Up to four tiles side by side.
struct Streams {
  int n;
  const std::byte* tile[kStreams];
  float* out[kStreams];    // where the rows of a tile go for token 0
  int64_t rows[kStreams];  // real ones
};

// Asks for the bytes of a set to come. One set at a time: a whole block of requests at once fills
// the queue of the cache and the loads wait behind them.
template <class Isa, TileFormat F>
CARAT_INLINE void prefetch_ahead(const std::byte* p) {
  constexpr int kBytes = Format<F>::kBlockBytes / Format<F>::kSets;
  for (int i = 0; i < kBytes; i += 64) Isa::prefetch(p + kAhead + i);
}

// n <= kMost tokens; add(block, p, set, acc) multiplies the set at p of a block by all of them.
template <class Isa, TileFormat F, int kMost, class Add>
CARAT_INLINE void walk(const Streams& streams, int64_t n, int64_t cols, int64_t stride, Add add) {
  using Fmt = Format<F>;
  typename Isa::Floats acc[kStreams][kMost];
  const std::byte* at[kStreams];
  for (int s = 0; s < streams.n; ++s) {
    at[s] = streams.tile[s];
    for (int64_t t = 0; t < n; ++t) acc[s][t] = Isa::zero();
  }
  for (int64_t set = 0; set < cols / kTileColumns; set += Fmt::kSets) {
    int64_t offset = Fmt::kInfo.head_bytes;
    for (int i = 0; i < Fmt::kSets; ++i, offset += Fmt::kSetBytes) {
      for (int s = 0; s < streams.n; ++s) {
        prefetch_ahead<Isa, F>(at[s] + offset);
        add(at[s], at[s] + offset, set + i, acc[s]);
      }
    }
    for (int s = 0; s < streams.n; ++s) at[s] += Fmt::kBlockBytes;
  }
  for (int s = 0; s < streams.n; ++s) {
    for (int64_t t = 0; t < n; ++t) {
      typename Isa::Floats y = acc[s][t];
      if constexpr (Fmt::kChannel) {
        y = Isa::mul(y, Isa::load_floats(reinterpret_cast<const float*>(at[s])));
      }
      Isa::store_floats(streams.out[s] + t * stride, y, streams.rows[s]);
    }
  }
}

// f(streams) over all tiles of a matrix: four parts side by side, then what is left.
template <class F>
CARAT_INLINE void for_streams(const TileRows& w, const LinearOutput& y, F f) {
  const int64_t tiles = (w.rows + kTileRows - 1) / kTileRows;
  const int64_t per_stream = tiles / kStreams;
  for (int64_t i = 0; i < per_stream + (tiles % kStreams != 0); ++i) {
    const bool rest = i == per_stream;
    Streams streams;
    streams.n = rest ? static_cast<int>(tiles % kStreams) : kStreams;
    for (int s = 0; s < streams.n; ++s) {
      const int64_t tile = rest ? kStreams * per_stream + s : s * per_stream + i;
      const int64_t left = w.rows - tile * kTileRows;
      streams.tile[s] = w.data + tile * w.tile_bytes;
      streams.out[s] = y.data + tile * kTileRows;
      streams.rows[s] = left < kTileRows ? left : kTileRows;
    }
    f(streams);
  }
}

// T <= Isa::kFewTokens tokens.
template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void few_tokens(const TileRows& w, const QuantizedRows& x,
                                          const LinearOutput& y) {
  for_streams(w, y, [&](const Streams& s) CARAT_LAMBDA {
    walk<Isa, F, T>(
        s, T, x.cols, y.stride,
        [&](const std::byte* block, const std::byte* p, int64_t set, typename Isa::Floats* acc)
            CARAT_LAMBDA { add_set<Isa, F, T>(block, p, x, set, acc); });
  });
}

// Up to Isa::kSeveralTokens: a block is unpacked again for each group of tokens, which costs less
// than a panel.
template <class Isa, TileFormat F>
__attribute__((noinline)) void several_tokens(const TileRows& w, const QuantizedRows& x,
                                              const LinearOutput& y) {
  const int64_t n_sets = x.cols / kTileColumns;
  for_streams(w, y, [&](const Streams& s) CARAT_LAMBDA {
    walk<Isa, F, Isa::kSeveralTokens>(
        s, x.n, x.cols, y.stride,
        [&](const std::byte* block, const std::byte* p, int64_t set, typename Isa::Floats* acc)
            CARAT_LAMBDA {
              for_groups<Isa::kFewTokens>(x.n, [&](int64_t t, auto T) CARAT_LAMBDA {
                add_set<Isa, F, T>(block, p, x, t * n_sets + set, acc + t);
              });
            });
  });
}

}  // namespace
}  // namespace carat::kernels::tile
