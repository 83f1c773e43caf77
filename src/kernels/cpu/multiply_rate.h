// How fast this machine multiplies 8-bit integers: the limit that prefill speed is compared with.
#pragma once

#include <string_view>

#include "base/thread_pool.h"

namespace carat::kernels {

// Multiply-adds per second that the pool's threads together reach in the bare loop of an
// instruction set: registers only, independent chains, no loads, no scales.
//   avx512*   vpdpbusd on 512 bits
//   *vnni*    vpdpbusd on 256 bits
//   avx2      vpmaddubsw + vpaddw on 256 bits
//   neon*     sdot
//   others    an int8 dot product in cached memory, as the compiler makes it
// `isa` is the name in a KernelTable. The best of `passes` passes of about a millisecond each, so
// that work of others on the machine does not count. REQUIRES: this machine can run `isa`.
double measure_multiply_rate(ThreadPool& pool, std::string_view isa, int passes = 60);

}  // namespace carat::kernels
