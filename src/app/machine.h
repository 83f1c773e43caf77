// The limits of this machine that speeds are compared with, measured and told.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"
#include "base/thread_pool.h"

namespace carat::app {

struct MachineLimits {
  double read_bandwidth = 0;  // bytes/s, all threads of the pool together
  double multiply_rate = 0;   // int8 multiply-adds/s in the bare loop of the instruction set
};

// Takes about half a second and, meanwhile, half a gigabyte of memory.
[[nodiscard]] MachineLimits measure_limits(ThreadPool& pool, std::string_view isa);

// The larger of two measurements, figure by figure: what the machine can do.
[[nodiscard]] MachineLimits better_of(const MachineLimits& a, const MachineLimits& b);

// Whether a figure of two measurements differs by more than a tenth: then the machine was not
// quiet.
[[nodiscard]] bool limits_moved(const MachineLimits& a, const MachineLimits& b);

// Makes peak_resident_bytes() count from now on. False if the system cannot.
bool reset_peak_resident();

// Sets the keys PREFIXread_gigabytes_per_second and PREFIXgiga_multiply_adds_per_second.
void put_limits(const MachineLimits& limits, const std::string& prefix, Json& j);

}  // namespace carat::app
