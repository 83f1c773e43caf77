// y = x w^T for tiles of one format: what the tables of kernels point at.
#pragma once

#include "kernels/cpu/tile/few.h"
#include "kernels/cpu/tile/many.h"

// The kernel of one format as a strong function of the ISA's namespace: linear_kQ4_0 and the like
// are declared in kernels/cpu/tile/table.h.
#define CARAT_TILE_LINEAR(Isa, F)                                                              \
  void linear_##F(const TileRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept { \
    tile::linear<Isa, TileFormat::F>(w, x, y);                                                 \
  }

namespace carat::kernels::tile {
namespace {

template <class Isa, TileFormat F>
void linear(const TileRows& w, const QuantizedRows& x, const LinearOutput& y) noexcept {
  if (x.n > Isa::kSeveralTokens) return many_tokens<Isa, F>(w, x, y);
  if (x.n > Isa::kFewTokens) return several_tokens<Isa, F>(w, x, y);
  unroll<Isa::kFewTokens>([&](auto i) CARAT_LAMBDA {
    if (x.n == i + 1) few_tokens<Isa, F, i + 1>(w, x, y);
  });
}

}  // namespace
}  // namespace carat::kernels::tile
