// Loops that are always unrolled, so that small arrays of vectors live in registers. Everything is
// in an anonymous namespace and always inlined: no symbol leaves the object that includes it.
#pragma once

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

}  // namespace
}  // namespace carat::kernels::tile
