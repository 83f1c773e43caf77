// Channel formats with static activations (StaticRows): integers along the whole row, then one
// multiplication: y = float(S) * (scale of the row * scale of the token). With codes below 2^7 in
// magnitude and at most 2^16 columns |S| is at most 2^30, and so are the sums of codes with their
// offset: 15 * 128 * 2^16 < 2^27.
#pragma once

#include <type_traits>

#include "kernels/cpu/tile/few.h"
#include "kernels/cpu/tile/many.h"

// The kernel of one format as a strong function of the ISA's namespace, declared in
// kernels/cpu/tile/table.h.
#define CARAT_TILE_STATIC(Isa, F)                                                           \
  void static_##F(const TileRows& w, const StaticRows& x, const LinearOutput& y) noexcept { \
    tile::linear_static<Isa, TileFormat::F>(w, x, y);                                       \
  }

namespace carat::kernels::tile {
namespace {

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

// -- few tokens ----------------------------------------------------------------------------------

// The products of one tile with T tokens: begin, add for every set, sum.
template <class Isa, TileFormat F, int T>
struct TileSums {
  typename Isa::template LongDot<kMaxOf<Isa, F>> dot[T];

  CARAT_INLINE void begin() {
    unroll<T>([&](auto t) CARAT_LAMBDA { dot[t].begin(Isa::splat_int(0)); });
  }
  CARAT_INLINE void add(const std::byte* planes, const int8_t* x, int64_t stride) {
    unroll<8>([&](auto k) CARAT_LAMBDA {
      const typename Isa::Codes c = set_codes<Isa, F, vector_of(k)>(planes);
      unroll<T>([&](auto t)
                    CARAT_LAMBDA { dot[t].template add<k>(c, x + t * stride + column_of(k)); });
    });
  }
  CARAT_INLINE typename Isa::Ints sum(int t) const { return dot[t].sum(); }
};

// One token, where products do not saturate and registers abound (Isa::kPlaceSums): codes are not
// shifted out of their place in a byte but count 4, 16 or 64 times as much there. Every place has a
// sum of its own, a multiple of that: below 64 * 3 * 128 * 2^14 and 16 * 15 * 128 * 2^15, which is
// less than 2^30.
template <class Isa, TileFormat F>
struct PlaceSums {
  static constexpr int kBits = plane_bits(Format<F>::kInfo.low);
  static constexpr int kPlaces = 8 / kBits;  // codes of a byte
  typename Isa::Ints part[kPlaces];

  CARAT_INLINE void begin() {
    unroll<kPlaces>([&](auto p) CARAT_LAMBDA { part[p] = Isa::splat_int(0); });
  }
  CARAT_INLINE void add(const std::byte* planes, const int8_t* x, int64_t) {
    unroll<8 / kPlaces>([&](auto v) CARAT_LAMBDA {
      const typename Isa::Codes bytes = Isa::load(planes + v * kPlaneVector);
      unroll<kPlaces>([&](auto p) CARAT_LAMBDA {
        constexpr uint8_t kMask = static_cast<uint8_t>(((1 << kBits) - 1) << (p * kBits));
        constexpr int kColumn = kPlaces == 2 ? 16 * p + 4 * v : 16 * v + 4 * p;
        part[p] = Isa::add_products(part[p], Isa::mask(bytes, kMask), x + kColumn);
      });
    });
  }
  CARAT_INLINE typename Isa::Ints sum(int) const {
    typename Isa::Ints all = part[0];
    unroll<kPlaces - 1>([&](auto p) CARAT_LAMBDA {
      all = Isa::add_ints(all, Isa::template right_ints<kBits*(p + 1)>(part[p + 1]));
    });
    return all;
  }
};

template <class Isa, TileFormat F, int T>
using SumsOf = std::conditional_t<T == 1 && F != TileFormat::kC8 && Isa::kPlaceSums,
                                  PlaceSums<Isa, F>, TileSums<Isa, F, T>>;

// Strings of tiles side by side as in few.h, from stream `first` on.
template <class Isa, TileFormat F, int T, int kStrings>
CARAT_INLINE void static_walk(const Streams& streams, int first, const StaticRows& x,
                              int64_t stride) {
  constexpr int64_t kSetBytes = Format<F>::kBlockBytes;
  SumsOf<Isa, F, T> sums[kStrings];
  const std::byte* at[kStrings];
  unroll<kStrings>([&](auto s) CARAT_LAMBDA {
    at[s] = streams.tile[first + s];
    sums[s].begin();
  });
  const int8_t* codes = x.codes;
  for (int64_t column = 0; column < x.cols; column += kTileColumns, codes += kTileColumns) {
    unroll<kStrings>([&](auto s) CARAT_LAMBDA {
      prefetch_ahead<Isa, F>(at[s]);
      sums[s].add(at[s], codes, x.cols);
      at[s] += kSetBytes;
    });
  }
  unroll<kStrings>([&](auto s) CARAT_LAMBDA {
    for (int t = 0; t < T; ++t) {
      finish_static<Isa, F>(sums[s].sum(t), x, t, at[s], streams.out[first + s] + t * stride,
                            streams.rows[first + s]);
    }
  });
}

template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void static_few(const TileRows& w, const StaticRows& x,
                                          const LinearOutput& y) {
  for_streams(w, y, [&](const Streams& s) CARAT_LAMBDA {
    if (s.n == kStreams) return static_walk<Isa, F, T, kStreams>(s, 0, x, y.stride);
    for (int i = 0; i < s.n; ++i) static_walk<Isa, F, T, 1>(s, i, x, y.stride);
  });
}

// -- many tokens ---------------------------------------------------------------------------------

constexpr int64_t kStaticBlock = 96;  // tokens that share one unpacking

// Tokens of the register tile. Of the Isa whose sums take two registers fewer.
template <class Isa>
constexpr int kStaticTokens = Isa::kCodeSign == CodeSign::kMixed ? 3 : Isa::kTokens;

template <class Isa, TileFormat F>
struct alignas(64) StaticSet {
  typename PanelOf<Isa, F>::Codes codes[8];
};
template <class Isa, TileFormat F, int T>
struct alignas(64) StaticGroup {
  int8_t codes[T][PanelOf<Isa, F>::kTokenBytes];
};

// P tiles of a panel times T tokens. Sums rest in `sums` [T][tiles] between stretches.
template <class Isa, TileFormat F, int P, int T>
CARAT_INLINE void static_tiles(const StaticSet<Isa, F>* panel, int64_t n_sets,
                               const StaticGroup<Isa, F, T>* group, bool first, float* sums,
                               int64_t stride) {
  using Panel = PanelOf<Isa, F>;
  typename Panel::Long sum[P][T];
  unroll<P>([&](auto p) CARAT_LAMBDA {
    unroll<T>([&](auto t) CARAT_LAMBDA {
      sum[p][t].begin(first ? Isa::splat_int(0)
                            : Isa::load_ints(sums + t * stride + p * kTileRows));
    });
  });
  for (int64_t i = 0; i < n_sets; ++i) {
    unroll<8>([&](auto k) CARAT_LAMBDA {
      typename Panel::Codes c[P];
      unroll<P>([&](auto p) CARAT_LAMBDA { c[p] = panel[p * kPanelSets + i].codes[k]; });
      unroll<T>([&](auto t) CARAT_LAMBDA {
        unroll<P>([&](auto p) CARAT_LAMBDA {
          sum[p][t].template add<k>(c[p], group[i].codes[t] + Panel::place_of(vector_of(k)));
        });
      });
    });
  }
  unroll<P>([&](auto p) CARAT_LAMBDA {
    unroll<T>([&](auto t) CARAT_LAMBDA {
      Isa::store_ints(sums + t * stride + p * kTileRows, sum[p][t].sum());
    });
  });
}

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
  int64_t tile = 0;
  for (; tile + Isa::kTiles <= tiles; tile += Isa::kTiles) {
    static_tiles<Isa, F, Isa::kTiles, T>(panel + tile * kPanelSets, n_sets, group, first,
                                         sums + tile * kTileRows, stride);
  }
  if constexpr (Isa::kTiles > 1) {
    for (; tile < tiles; ++tile) {
      static_tiles<Isa, F, 1, T>(panel + tile * kPanelSets, n_sets, group, first,
                                 sums + tile * kTileRows, stride);
    }
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
      for (int64_t i = 0; i < n_tiles; ++i) {
        const std::byte* planes = first + i * w.tile_bytes + set * Fmt::kBlockBytes;
        for (int64_t j = 0; j < n; ++j, planes += Fmt::kBlockBytes) {
          unroll<8>([&](auto k) CARAT_LAMBDA {
            panel[i * kPanelSets + j].codes[k] =
                PanelOf<Isa, F>::pack(set_codes<Isa, F, vector_of(k)>(planes));
          });
        }
      }
      for_groups<kStaticTokens<Isa>>(x.n, [&](int64_t token, auto T) CARAT_LAMBDA {
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
  if (x.n <= Isa::kFewTokens) {
    unroll<Isa::kFewTokens>([&](auto i) CARAT_LAMBDA {
      if (x.n == i + 1) static_few<Isa, F, i + 1>(w, x, y);
    });
    return;
  }
  // As even as whole groups allow.
  constexpr int64_t kGroup = kStaticTokens<Isa>;
  const int64_t blocks = (x.n + kStaticBlock - 1) / kStaticBlock;
  const int64_t even = ((x.n + blocks - 1) / blocks + kGroup - 1) / kGroup * kGroup;
  for (int64_t t = 0; t < x.n; t += even) {
    const int64_t n = x.n - t < even ? x.n - t : even;
    static_many<Isa, F>(w, {n, x.cols, x.codes + t * x.cols, x.scales + t, x.sums + t},
                        {y.data + t * y.stride, y.stride});
  }
}

}  // namespace
}  // namespace carat::kernels::tile
