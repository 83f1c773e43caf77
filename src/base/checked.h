// Checked 64-bit arithmetic for every size that comes from a file or a request.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

#include "base/error.h"

namespace carat {

[[nodiscard]] inline std::optional<int64_t> checked_add(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

[[nodiscard]] inline std::optional<int64_t> checked_mul(int64_t a, int64_t b) {
  int64_t r;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

// Product of all factors, or nothing if one is negative or the product does not fit 64 bits.
[[nodiscard]] inline std::optional<int64_t> checked_product(std::initializer_list<int64_t> factors) {
  int64_t r = 1;
  for (int64_t f : factors) {
    if (f < 0 || __builtin_mul_overflow(r, f, &r)) return std::nullopt;
  }
  return r;
}

// As above, throwing Error(what) on overflow.
[[nodiscard]] inline int64_t add_or_throw(int64_t a, int64_t b, const char* what) {
  if (auto r = checked_add(a, b)) return *r;
  throw Error(std::string(what) + " does not fit 64 bits");
}
[[nodiscard]] inline int64_t mul_or_throw(int64_t a, int64_t b, const char* what) {
  if (auto r = checked_mul(a, b)) return *r;
  throw Error(std::string(what) + " does not fit 64 bits");
}

// Smallest multiple of `unit` (> 0) that is at least n (>= 0). REQUIRES: no overflow.
[[nodiscard]] constexpr int64_t round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
[[nodiscard]] constexpr int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

}  // namespace carat
