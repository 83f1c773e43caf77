#include "tensor/compare.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace carat {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

bool same_non_finite(float a, float b) { return (std::isnan(a) && std::isnan(b)) || a == b; }

}  // namespace

Comparison compare(std::span<const float> got, std::span<const float> want) {
  CHECK(got.size() == want.size());
  Comparison c;
  c.n = static_cast<int64_t>(got.size());
  double error = 0, got2 = 0, want2 = 0, both = 0;
  bool broken = false;
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = got[i], w = want[i];
    const bool finite = std::isfinite(g) && std::isfinite(w);
    const bool equal = finite ? g == w : same_non_finite(got[i], want[i]);
    if (!equal) {
      ++c.n_different;
      if (c.first_different < 0) c.first_different = static_cast<int64_t>(i);
    }
    if (!finite) {
      broken = broken || !equal;
      continue;
    }
    const double difference = std::fabs(g - w);
    c.max_abs = std::max(c.max_abs, difference);
    if (difference > 0)
      c.max_rel = std::max(c.max_rel, w == 0 ? kInfinity : difference / std::fabs(w));
    error += difference * difference;
    got2 += g * g;
    want2 += w * w;
    both += g * w;
  }
  if (broken) {
    c.max_abs = c.max_rel = c.nmse = kInfinity;
    c.cosine = 0;
    return c;
  }
  if (error > 0) c.nmse = want2 > 0 ? error / want2 : kInfinity;
  if (got2 > 0 || want2 > 0) {
    c.cosine = got2 > 0 && want2 > 0 ? both / (std::sqrt(got2) * std::sqrt(want2)) : 0.0;
  }
  return c;
}

int64_t first_bit_difference(std::span<const float> got, std::span<const float> want) {
  CHECK(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(want[i])) continue;
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(want[i])) {
      return static_cast<int64_t>(i);
    }
  }
  return -1;
}

std::string to_string(const Comparison& c) {
  if (c.n_different == 0) return fmt::format("all {} equal", c.n);
  return fmt::format(
      "{} of {} differ, first at {}, max abs {:.3g}, max rel {:.3g}, nmse {:.3g}, cosine {:.9g}",
      c.n_different, c.n, c.first_different, c.max_abs, c.max_rel, c.nmse, c.cosine);
}

}  // namespace carat
