// What recovery found in many blocks, and the loop that gathers it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/json.h"
#include "convert/lattice.h"
#include "convert/lattice_run.h"

namespace carat::convert {

// Counts of blocks unless a name says otherwise. Sums of two are the findings of both.
struct LatticeStats {
  int64_t blocks = 0;
  int64_t blocks_on_lattice = 0;
  int64_t weights = 0;
  // Weights that the written (on-lattice or fitted) block gives back bit for bit once it is rounded
  // to the grid; zeros of either sign are equal. Blocks that were refused count none.
  int64_t weights_bit_exact = 0;
  int64_t sign_changed_zeros = 0;  // weights among those, whose zero has the other sign

  // By rule, and by the scale's exactness, of blocks on the lattice.
  int64_t zero = 0, signed8 = 0, absmax7 = 0, other_peak = 0;
  int64_t scale_exact_in_bf16 = 0;
  // Off the lattice, but a bfloat16 (or only a float) scale would do.
  int64_t needs_bf16_scale = 0, needs_f32_scale = 0;
  int64_t refused = 0;  // not finite, or too large for any binary16 scale

  // Largest |value - weight| in a fitted block over that block's largest |weight|.
  double worst_relative_error = 0;
  double squared_error = 0, squared_weights = 0;  // over fitted blocks

  // The reference rule (signed extremum / -8, what llama.cpp's quantizer does), on every 16th
  // block.
  int64_t naive_weights = 0, naive_weights_bit_exact = 0;

  std::array<int64_t, 16> codes = {};  // written codes 0..15 (value d * (code - 8))

  bool all_on_lattice() const { return blocks > 0 && blocks_on_lattice == blocks; }
  void add(const LatticeStats& other);
};

Json to_json(const LatticeStats& stats);

// Recovers n_blocks blocks of w; those off the lattice are fitted (q4_0_fit.h) into `out`, and
// written as zeros if even that is refused. `out` (18 bytes a block) may be null: then blocks are
// only judged, and off-lattice blocks add nothing to the error figures and bit-exact weights.
// `first` is the index of the first block in its tensor (it decides which blocks are sampled).
// Without a grid, each block is taken to lie on the coarsest one that holds its weights.
// Adds to `stats`. Safe on several threads with stats of their own.
void recover_blocks(const float* w, int64_t first, int64_t n_blocks, std::optional<Grid> grid,
                    std::byte* out, LatticeStats& stats);

// The same of bfloat16 weights (64 bytes a block), on their own grid; several times as fast. `run`
// does the usual blocks; without it recover_block does all. The result does not depend on it.
void recover_bf16_blocks(const std::byte* w, int64_t first, int64_t n_blocks, std::byte* out,
                         LatticeStats& stats, RecoverRun run = best_recover_run());

}  // namespace carat::convert
