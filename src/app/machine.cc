#include "app/machine.h"

#include <algorithm>
#include <cstdio>

#include "kernels/cpu/bandwidth.h"
#include "kernels/cpu/multiply_rate.h"

namespace carat::app {
namespace {

bool differ(double a, double b) { return std::max(a, b) > 1.1 * std::min(a, b); }

}  // namespace

MachineLimits measure_limits(ThreadPool& pool, std::string_view isa) {
  return {kernels::measure_read_bandwidth(pool), kernels::measure_multiply_rate(pool, isa)};
}

MachineLimits better_of(const MachineLimits& a, const MachineLimits& b) {
  return {std::max(a.read_bandwidth, b.read_bandwidth), std::max(a.multiply_rate, b.multiply_rate)};
}

bool limits_moved(const MachineLimits& a, const MachineLimits& b) {
  return differ(a.read_bandwidth, b.read_bandwidth) || differ(a.multiply_rate, b.multiply_rate);
}

bool reset_peak_resident() {
  std::FILE* const file = std::fopen("/proc/self/clear_refs", "w");
  if (!file) return false;
  const bool written = std::fputs("5", file) >= 0;
  return std::fclose(file) == 0 && written;
}

void put_limits(const MachineLimits& limits, const std::string& prefix, Json& j) {
  j[prefix + "read_gigabytes_per_second"] = limits.read_bandwidth / 1e9;
  j[prefix + "giga_multiply_adds_per_second"] = limits.multiply_rate / 1e9;
}

}  // namespace carat::app
