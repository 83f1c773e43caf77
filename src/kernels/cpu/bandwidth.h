// How fast this machine's memory can be read: the limit that decode speed is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"

namespace carat::kernels {

// Bytes per second at which the pool's threads together read every cache line of `bytes`, in slices
// of some megabytes: the best slice of `passes` passes, so that work of others on the machine does
// not count. `bytes` should be several times the last-level cache; a mapped model serves (its first
// pass brings it in). Takes about passes * size / 20e9 seconds.
double measure_read_bandwidth(ThreadPool& pool, std::span<const std::byte> bytes, int passes = 3);

// The same over memory of its own, given back before it returns.
double measure_read_bandwidth(ThreadPool& pool, int64_t size = int64_t{512} << 20, int passes = 3);

}  // namespace carat::kernels
