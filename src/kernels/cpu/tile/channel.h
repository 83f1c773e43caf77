// Channel formats with static activations (StaticRows): integers along the whole row, then one
// multiplication: y = float(S) * (scale of the row * scale of the token). With codes below
// 2^7 in magnitude and at most 2^16 columns |S| is at most 2^30, and so are the sums of codes with
// their offset: 15 * 128 * 2^16 < 2^27.
#pragma once

#include "kernels/cpu/tile/few.h"
#include "kernels/cpu/tile/many.h"

namespace carat::kernels::tile {
namespace {

constexpr int64_t kStaticBlock = 64;  // tokens that share one unpacking
constexpr int kStaticTokens = 3;      // of the register tile

// Rows of one tile of token t: sums (offset not taken off) to results.
template <class Isa, TileFormat F>
CARAT_INLINE void finish_static(typename Isa::Ints sum, const StaticRows& x, int64_t t,
                                const std::byte* tail, float* y, int64_t n_rows) {
  const typename Isa::Floats scale =
      Isa::mul(Isa::load_floats(reinterpret_cast<const float*>(tail)), Isa::splat(x.scales + t));
  const typename Isa::Ints exact =
      Isa::add_ints(sum, Isa::splat_int(-kOffsetOf<Isa, F> * x.sums[t]));
  Isa::store_floats(y, Isa::mul(Isa::to_floats(exact), scale), n_rows);
}

// Strings of tiles side by side as in few.h, times T tokens.
template <class Isa, TileFormat F, int T>
CARAT_INLINE void static_walk(const Streams& streams, const StaticRows& x, int64_t stride) {
  using Fmt = Format<F>;
  typename Isa::template LongDot<kMaxOf<Isa, F>> sum[kStreams][T];
  const std::byte* at[kStreams];
  for (int s = 0; s < streams.n; ++s) {
    at[s] = streams.tile[s];
    unroll<T>([&](auto t) CARAT_LAMBDA { sum[s][t].begin(Isa::splat_int(0)); });
  }
  const int8_t* codes = x.codes;
  for (int64_t column = 0; column < x.cols; column += kTileColumns, codes += kTileColumns) {
    for (int s = 0; s < streams.n; ++s) {
      const std::byte* planes = at[s];
      at[s] += Fmt::kBlockBytes;
      prefetch_ahead<Isa, F>(planes);
      unroll<8>([&](auto k) CARAT_LAMBDA {
        const typename Isa::Codes c = set_codes<Isa, F, vector_of(k)>(planes);
        unroll<T>([&](auto t) CARAT_LAMBDA {
          sum[s][t].template add<k>(c, codes + t * x.cols + column_of(k));
        });
      });
    }
  }
  for (int s = 0; s < streams.n; ++s) {
    unroll<T>([&](auto t) CARAT_LAMBDA {
      finish_static<Isa, F>(sum[s][t].sum(), x, t, at[s], streams.out[s] + t * stride,
                            streams.rows[s]);
    });
  }
}

template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void static_few(const TileRows& w, const StaticRows& x,
                                          const LinearOutput& y) {
  for_streams(w, y, [&](const Streams& s) CARAT_LAMBDA { static_walk<Isa, F, T>(s, x, y.stride); });
}

template <class Isa, TileFormat F>
struct alignas(64) StaticSet {
  typename PanelOf<Isa, F>::Codes codes[8];
};
template <class Isa, TileFormat F, int T>
struct alignas(64) StaticGroup {
  int8_t codes[T][PanelOf<Isa, F>::kTokenBytes];
};

// One panel of `tiles` tiles times T tokens. Sums rest in `sums` [T][tiles] between stretches.
template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void static_group(const StaticSet<Isa, F>* panel, int64_t tiles,
                                            int64_t n_sets, const int8_t* x, int64_t cols,
                                            bool first, float* sums, int64_t stride) {
  using Panel = PanelOf<Isa, F>;
  StaticGroup<Isa, F, T> group[kPanelSets];
  for (int64_t i = 0; i < n_sets; ++i) {
    for (int t = 0; t < T; ++t) {
      Panel::pack_token(x + t * cols + i * kTileColumns, group[i].codes[t]);
    }
  }
  for (int64_t tile = 0; tile < tiles; ++tile, panel += kPanelSets) {
    float* place = sums + tile * kTileRows;
    typename Panel::Long sum[T];
    unroll<T>([&](auto t) CARAT_LAMBDA {
      sum[t].begin(first ? Isa::splat_int(0) : Isa::load_ints(place + t * stride));
    });
    for (int64_t i = 0; i < n_sets; ++i) {
      unroll<8>([&](auto k) CARAT_LAMBDA {
        const typename Panel::Codes c = panel[i].codes[k];
        unroll<T>([&](auto t) CARAT_LAMBDA {
          sum[t].template add<k>(c, group[i].codes[t] + Panel::place_of(vector_of(k)));
        });
      });
    }
    unroll<T>([&](auto t) CARAT_LAMBDA { Isa::store_ints(place + t * stride, sum[t].sum()); });
  }
}

// At most kStaticBlock tokens.
template <class Isa, TileFormat F>
CARAT_INLINE void static_many(const TileRows& w, const StaticRows& x, const LinearOutput& y) {
  constexpr int64_t kStride = kPanelTiles * kTileRows;
  using Fmt = Format<F>;
  const int64_t n_sets = x.cols / kTileColumns, tiles = (w.rows + kTileRows - 1) / kTileRows;
  alignas(64) float sums[kStaticBlock * kStride];
  StaticSet<Isa, F> panel[kPanelTiles * kPanelSets];
  for (int64_t tile = 0; tile < tiles; tile += kPanelTiles) {
    const std::byte* first = w.data + tile * w.tile_bytes;
    const int64_t n_tiles = tiles - tile < kPanelTiles ? tiles - tile : kPanelTiles;
    for (int64_t set = 0; set < n_sets; set += kPanelSets) {
      const int64_t n = n_sets - set < kPanelSets ? n_sets - set : kPanelSets;
      for (int64_t i = 0; i < n_tiles * n; ++i) {
        const std::byte* planes = first + i / n * w.tile_bytes + (set + i % n) * Fmt::kBlockBytes;
        unroll<8>([&](auto k) CARAT_LAMBDA {
          panel[i / n * kPanelSets + i % n].codes[k] =
              PanelOf<Isa, F>::pack(set_codes<Isa, F, vector_of(k)>(planes));
        });
      }
      for_groups<kStaticTokens>(x.n, [&](int64_t token, auto T) CARAT_LAMBDA {
        static_group<Isa, F, T>(panel, n_tiles, n, x.codes + token * x.cols + set * kTileColumns,
                                x.cols, set == 0, sums + token * kStride, kStride);
      });
    }
    for (int64_t i = 0; i < n_tiles; ++i) {
      const int64_t left = w.rows - (tile + i) * kTileRows;
      const std::byte* tail = first + i * w.tile_bytes + n_sets * Fmt::kBlockBytes;
      for (int64_t t = 0; t < x.n; ++t) {
        finish_static<Isa, F>(Isa::load_ints(sums + t * kStride + i * kTileRows), x, t, tail,
                              y.data + t * y.stride + (tile + i) * kTileRows,
                              left < kTileRows ? left : kTileRows);
      }
    }
  }
}

template <class Isa, TileFormat F>
void linear_static(const TileRows& w, const StaticRows& x, const LinearOutput& y) noexcept {
  switch (x.n) {
    case 0:
      return;
    case 1:
      return static_few<Isa, F, 1>(w, x, y);
    case 2:
      return static_few<Isa, F, 2>(w, x, y);
    case 3:
      return static_few<Isa, F, 3>(w, x, y);
    default:
      for (int64_t t = 0; t < x.n; t += kStaticBlock) {
        const int64_t n = x.n - t < kStaticBlock ? x.n - t : kStaticBlock;
        static_many<Isa, F>(w, {n, x.cols, x.codes + t * x.cols, x.scales + t, x.sums + t},
                            {y.data + t * y.stride, y.stride});
      }
  }
}

}  // namespace
}  // namespace carat::kernels::tile
