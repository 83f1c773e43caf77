// Many tokens: bound by multiplications. A stretch of columns of a few tiles is unpacked into a
// panel that the nearest caches hold, then all tokens pass by, a group of them at a time, their
// activations laid side by side once for all tiles. Between stretches the sums rest in y, which
// changes no bit.
#pragma once

#include "kernels/cpu/tile/format.h"

namespace carat::kernels::tile {
namespace {

constexpr int kPanelSets = 16;  // 512 columns
constexpr int kPanelTiles = 4;
constexpr int kKeptGroups = 32;  // 128 KB of Q4_0's: they come from the second cache

template <class Isa, TileFormat F>
struct alignas(64) PanelSet {
  typename PanelOf<Isa, F>::Codes codes[8];  // in the order in which they are used
  SetScales<Isa, F> scales;
};

// A set of T tokens, side by side.
template <int T, int kTokenBytes>
struct alignas(64) GroupSet {
  int8_t codes[T][kTokenBytes];
  float scale[T], scaled_sum[T];
  int32_t start[T], half_start[T][2];
  int16_t half_sums[T][2];

  CARAT_INLINE Token token(int t) const {
    return {codes[t], &scale[t], &scaled_sum[t], &start[t], half_sums[t], half_start[t]};
  }
};

template <class Isa, TileFormat F, int T>
using Group = GroupSet<T, PanelOf<Isa, F>::kTokenBytes>;

// The groups of a stretch.
template <class Isa, TileFormat F>
struct alignas(64) KeptGroups {
  static constexpr int64_t kMostTokens = kKeptGroups * Isa::kTokens;
  std::byte bytes[kKeptGroups][kPanelSets * sizeof(Group<Isa, F, Isa::kTokens>)];

  template <int T>
  CARAT_INLINE Group<Isa, F, T>* at(int64_t i) {
    return reinterpret_cast<Group<Isa, F, T>*>(bytes[i]);
  }
};

template <class Isa, TileFormat F>
CARAT_INLINE void unpack(const std::byte* block, int64_t n_sets, PanelSet<Isa, F>* panel) {
  using Fmt = Format<F>;
  for (int64_t set = 0; set < n_sets; set += Fmt::kSets, block += Fmt::kBlockBytes) {
    const std::byte* p = block + Fmt::kInfo.head_bytes;
    for (int i = 0; i < Fmt::kSets; ++i, p += Fmt::kSetBytes, ++panel) {
      panel->scales.read(block, p);
      unroll<8>([&](auto k) CARAT_LAMBDA {
        panel->codes[k] =
            PanelOf<Isa, F>::pack(set_codes<Isa, F, vector_of(k)>(p + Fmt::kInfo.scale_bytes));
      });
    }
  }
}

template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void gather(const QuantizedRows& x, int64_t token, int64_t set,
                                      int64_t n_sets, Group<Isa, F, T>* group) {
  constexpr Form kForm = Format<F>::form();
  const int64_t sets_of_row = x.cols / kTileColumns;
  for (int64_t i = 0; i < n_sets; ++i) {
    for (int t = 0; t < T; ++t) {
      const int64_t at = (token + t) * sets_of_row + set + i;
      Group<Isa, F, T>& g = group[i];
      PanelOf<Isa, F>::pack_token(x.codes + at * kTileColumns, g.codes[t]);
      g.scale[t] = x.scales[at];
      if constexpr (kForm == Form::kMin) g.scaled_sum[t] = x.scaled_sums[at];
      if constexpr (kForm == Form::kHalvesMin || Isa::kCodeSign == CodeSign::kMixed) {
        __builtin_memcpy(g.half_sums[t], x.half_sums + 2 * at, 4);
      }
      make_starts<Isa, F>(x, at, &g.start[t], g.half_start[t]);
    }
  }
}

// Asks for the bytes of set i of a panel to come.
template <class Isa, TileFormat F>
CARAT_INLINE void prefetch_set(const std::byte* panel, int64_t i) {
  constexpr int kBytes = (Format<F>::kBlockBytes + Format<F>::kSets - 1) / Format<F>::kSets;
  for (int b = 0; b < kBytes; b += 64) Isa::prefetch_far(panel + i * kBytes + b);
}

// P tiles of panels times T tokens. next: the tiles to ask for meanwhile, or null.
template <class Isa, TileFormat F, int P, int T>
CARAT_INLINE void multiply_panels(const PanelSet<Isa, F>* panel, const Group<Isa, F, T>* group,
                                  int64_t n_sets, const std::byte* const* next,
                                  typename Isa::Floats* acc) {
  for (int64_t i = 0; i < n_sets; ++i, ++panel, ++group) {
    if (next) {
      for (int p = 0; p < P; ++p) prefetch_set<Isa, F>(next[p], i);
    }
    TokenSum<Isa, F, PanelOf<Isa, F>> sum[P][T];
    unroll<T>([&](auto t) CARAT_LAMBDA {
      unroll<P>([&](auto p) CARAT_LAMBDA { sum[p][t].begin(group->token(t)); });
    });
    unroll<8>([&](auto i8) CARAT_LAMBDA {
      // One half after the other where each has its own sum.
      constexpr int k = has_halves(Format<F>::form()) ? i8 % 4 * 2 + i8 / 4 : i8;
      typename PanelOf<Isa, F>::Codes c[P];
      unroll<P>([&](auto p) CARAT_LAMBDA { c[p] = panel[p * kPanelSets].codes[k]; });
      unroll<T>([&](auto t) CARAT_LAMBDA {
        unroll<P>([&](auto p) CARAT_LAMBDA {
          sum[p][t].template add<k>(c[p], group->codes[t], panel[p * kPanelSets].scales);
        });
      });
    });
    unroll<T>([&](auto t) CARAT_LAMBDA {
      unroll<P>([&](auto p) CARAT_LAMBDA {
        const SetScales<Isa, F>& scales = panel[p * kPanelSets].scales;
        acc[p * T + t] = scales.apply(sum[p][t].finish(scales), group->token(t), acc[p * T + t]);
      });
    });
  }
}

// Where a panel came from and where its sums go.
struct PanelPlace {
  int64_t tiles;                       // of the panel
  int64_t rows;                        // real ones
  int64_t set;                         // the first one
  int64_t n_sets;                      // of the stretch
  bool last;                           // no stretch follows
  const std::byte* tail[kPanelTiles];  // channel scales of each tile
  const std::byte* next[kPanelTiles];  // what is unpacked after this panel
};

// Tiles [tile, tile + P) of the panel times T tokens.
template <class Isa, TileFormat F, int P, int T>
CARAT_INLINE void multiply_tiles(const PanelSet<Isa, F>* panel, int64_t tile,
                                 const PanelPlace& place, const Group<Isa, F, T>* group,
                                 bool first_group, float* y, int64_t stride) {
  typename Isa::Floats acc[P * T];
  y += tile * kTileRows;
  const int64_t left = place.rows - tile * kTileRows;
  const auto rows_of = [&](int p) {
    return left - p * kTileRows < kTileRows ? left - p * kTileRows : kTileRows;
  };
  for (int p = 0; p < P; ++p) {
    for (int t = 0; t < T; ++t) {
      acc[p * T + t] = place.set == 0
                           ? Isa::zero()
                           : Isa::load_floats(y + t * stride + p * kTileRows, rows_of(p));
    }
  }
  multiply_panels<Isa, F, P, T>(panel + tile * kPanelSets, group, place.n_sets,
                                first_group ? place.next + tile : nullptr, acc);
  for (int p = 0; p < P; ++p) {
    for (int t = 0; t < T; ++t) {
      typename Isa::Floats v = acc[p * T + t];
      if constexpr (Format<F>::kChannel) {
        if (place.last) {
          v = Isa::mul(v, Isa::load_floats(reinterpret_cast<const float*>(place.tail[tile + p])));
        }
      }
      Isa::store_floats(y + t * stride + p * kTileRows, v, rows_of(p));
    }
  }
}

template <class Isa, TileFormat F, int T>
__attribute__((noinline)) void multiply_group(const PanelSet<Isa, F>* panel,
                                              const PanelPlace& place,
                                              const Group<Isa, F, T>* group, bool first_group,
                                              float* y, int64_t stride) {
  int64_t tile = 0;
  for (; tile + Isa::kTiles <= place.tiles; tile += Isa::kTiles) {
    multiply_tiles<Isa, F, Isa::kTiles, T>(panel, tile, place, group, first_group, y, stride);
  }
  if constexpr (Isa::kTiles > 1) {
    for (; tile < place.tiles; ++tile) {
      multiply_tiles<Isa, F, 1, T>(panel, tile, place, group, first_group, y, stride);
    }
  }
}

// Where the panel of tiles from `tile` on begins and what follows it in the stretch at `set`.
template <class Isa, TileFormat F>
CARAT_INLINE PanelPlace place_of(const TileRows& w, int64_t tile, int64_t set, int64_t n_sets) {
  using Fmt = Format<F>;
  const int64_t tiles = (w.rows + kTileRows - 1) / kTileRows;
  const auto stretch = [&](int64_t t, int64_t s) {
    return w.data + t * w.tile_bytes + s / Fmt::kSets * Fmt::kBlockBytes;
  };
  PanelPlace place;
  place.tiles = tiles - tile < kPanelTiles ? tiles - tile : kPanelTiles;
  place.rows = w.rows - tile * kTileRows;
  place.set = set;
  place.n_sets = n_sets - set < kPanelSets ? n_sets - set : kPanelSets;
  place.last = set + place.n_sets == n_sets;
  const bool last_panel = tile + kPanelTiles >= tiles;
  for (int64_t i = 0; i < place.tiles; ++i) {
    place.tail[i] = stretch(tile + i, n_sets);
    place.next[i] = last_panel && !place.last ? stretch(i, set + kPanelSets)
                                              : stretch(tile + kPanelTiles + i, set);
  }
  return place;
}

// Tokens [begin, begin + n), at most KeptGroups::kMostTokens.
template <class Isa, TileFormat F>
CARAT_INLINE void multiply_block(const TileRows& w, const QuantizedRows& x, int64_t begin,
                                 int64_t n, const LinearOutput& y) {
  const int64_t tiles = (w.rows + kTileRows - 1) / kTileRows;
  const int64_t n_sets = x.cols / kTileColumns;
  PanelSet<Isa, F> panel[kPanelTiles * kPanelSets];
  KeptGroups<Isa, F> kept;
  for (int64_t set = 0; set < n_sets; set += kPanelSets) {
    int64_t group = 0;
    for_groups<Isa::kTokens>(n, [&](int64_t token, auto T) CARAT_LAMBDA {
      const int64_t stretch = n_sets - set < kPanelSets ? n_sets - set : kPanelSets;
      gather<Isa, F, T>(x, begin + token, set, stretch, kept.template at<T>(group++));
    });
    for (int64_t tile = 0; tile < tiles; tile += kPanelTiles) {
      const PanelPlace place = place_of<Isa, F>(w, tile, set, n_sets);
      for (int64_t i = 0; i < place.tiles; ++i) {
        unpack<Isa, F>(
            w.data + (tile + i) * w.tile_bytes + set / Format<F>::kSets * Format<F>::kBlockBytes,
            place.n_sets, panel + i * kPanelSets);
      }
      group = 0;
      for_groups<Isa::kTokens>(n, [&](int64_t token, auto T) CARAT_LAMBDA {
        multiply_group<Isa, F, T>(panel, place, kept.template at<T>(group), group == 0,
                                  y.data + (begin + token) * y.stride + tile * kTileRows, y.stride);
        ++group;
      });
    }
  }
}

template <class Isa, TileFormat F>
CARAT_INLINE void many_tokens(const TileRows& w, const QuantizedRows& x, const LinearOutput& y) {
  static_assert(kPanelSets % Format<F>::kSets == 0);
  constexpr int64_t kMost = KeptGroups<Isa, F>::kMostTokens;
  int64_t blocks = (x.n + kMost - 1) / kMost;
  for (int64_t begin = 0; begin < x.n; --blocks) {
    // As even as whole groups allow.
    const int64_t even = (x.n - begin + blocks - 1) / blocks;
    const int64_t whole = (even + Isa::kTokens - 1) / Isa::kTokens * Isa::kTokens;
    const int64_t n = whole < x.n - begin ? whole : x.n - begin;
    multiply_block<Isa, F>(w, x, begin, n, y);
    begin += n;
  }
}

}  // namespace
}  // namespace carat::kernels::tile
