// Runs of bfloat16 blocks that lie on the lattice in the usual way, in vector instructions.
//
// Of the blocks that recover_block (lattice.h) accepts, nearly all peak at 8 or 7 steps and have a
// scale that is found at once. Those are recovered here, several weights at a time, with the same
// result bit for bit; every other block is left to recover_block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace carat::convert {

// Sums over the blocks that were recovered; see LatticeStats.
struct RunCounts {
  int64_t signed8 = 0, absmax7 = 0;
  int64_t scale_exact_in_bf16 = 0;
  int64_t sign_changed_zeros = 0;
};

inline constexpr int kRunBlocks = 16;

// Recovers those of 16 blocks of 32 bfloat16 weights (64 bytes each) that are of the usual kind
// into `out` (18 bytes each), and answers which: bit i for block i. What `out` holds of the others
// is undefined. Adds to `counts`.
using RecoverRun = uint32_t (*)(const std::byte* w, std::byte* out, RunCounts& counts);

struct LatticeKernel {
  const char* isa;  // as KernelTable::isa
  RecoverRun run;
};

// Those that this machine can run, best first. May be empty.
std::span<const LatticeKernel> lattice_kernels();
// The first of them, or null.
RecoverRun best_recover_run();

namespace avx2 {
RecoverRun recover_run();  // null if it was not compiled in
}
namespace avx512 {
RecoverRun recover_run();
}

}  // namespace carat::convert
