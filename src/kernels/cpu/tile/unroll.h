// Loops that are always unrolled, so that small arrays of vectors live in registers. Everything is
// in an anonymous namespace and always inlined: no symbol leaves the object that includes it.
#pragma once

#include <cstdint>
#include <utility>

#define CARAT_INLINE inline __attribute__((always_inline))
#define CARAT_LAMBDA __attribute__((always_inline))

namespace carat::kernels::tile {
namespace {

template <int I>
struct Index {
  constexpr CARAT_INLINE operator int() const { return I; }
};

template <class F, int... I>
CARAT_INLINE void unroll_each(F& f, std::integer_sequence<int, I...>) {
  (f(Index<I>{}), ...);
}
// f(Index<0>{}), ..., f(Index<N - 1>{}). Write lambdas as [&](auto i) CARAT_LAMBDA { ... }.
template <int N, class F>
CARAT_INLINE void unroll(F f) {
  unroll_each(f, std::make_integer_sequence<int, N>{});
}

// f(first token, Index of how many) over n tokens in groups as equal as possible of at most kMost.
template <int kMost, class F>
CARAT_INLINE void for_groups(int64_t n, F f) {
  int64_t groups = (n + kMost - 1) / kMost;
  for (int64_t token = 0; token < n; --groups) {
    const int64_t size = (n - token + groups - 1) / groups;
    unroll<kMost>([&](auto i) CARAT_LAMBDA {
      if (size == i + 1) f(token, Index<i + 1>{});
    });
    token += size;
  }
}

}  // namespace
}  // namespace carat::kernels::tile
