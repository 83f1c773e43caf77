// Vectors of the encoders' searches, one source for all instruction sets: a lane is a candidate of
// a search or a sub-block of a block, so that all lanes do what one candidate needs, in its order.
//
// No result depends on the width: every sum over the elements of a sub-block is four sums, of the
// elements 0, 4, 8.., 1, 5, 9.. and so on, added as (s0 + s2) + (s1 + s3), and no multiplication is
// fused with an addition.
//
// The struct Isa, in an anonymous namespace of a file compiled for it:
//   kWidth, Floats, Ints, Halves, Doubles    lanes; the vectors of GCC and Clang of so many floats
//                                            and int32, and of half as many floats and doubles
//   clamp(v, lo, hi)                         v > lo ? v : lo, of that v < hi ? v : hi
//   compress(to, v, keep)                    writes the lanes that are set in `keep` one after
//                                            another, maybe others behind them; returns how many
//   iq4_levels(v)                            nearest of kIq4Levels, the lower of two equally near
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#define CARAT_SEARCH inline __attribute__((always_inline))

namespace carat::quant::search {
namespace {

template <class Isa>
using Floats = typename Isa::Floats;
template <class Isa>
using Ints = typename Isa::Ints;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class Vector>
CARAT_SEARCH Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <class Vector>
CARAT_SEARCH void store(float* to, Vector v) {
  std::memcpy(to, &v, sizeof(v));
}

// x in all lanes: x - 0 is x, minus zero included.
template <class Isa>
CARAT_SEARCH Floats<Isa> all(float x) {
  return x - Floats<Isa>{};
}

// 1.5 * 2^23: added to a small float, it leaves no room for a fraction.
constexpr float kMagic = 12582912.0f;

// Nearest integer of what is below 2^22, halves to even, never minus zero.
template <class Isa>
CARAT_SEARCH Floats<Isa> nearest(Floats<Isa> v) {
  return (v + kMagic) - kMagic;
}

// NaN gives lo.
template <class Isa>
CARAT_SEARCH Floats<Isa> nearest_codes(Floats<Isa> v, Floats<Isa> lo, Floats<Isa> hi) {
  return nearest<Isa>(Isa::clamp(v, lo, hi));
}

// Nearest in [lo, hi], integers, halves away from zero; NaN gives lo. As round_clamped of codes.h.
template <class Isa>
CARAT_SEARCH Floats<Isa> round_clamped_all(Floats<Isa> v, float lo, float hi) {
  const Floats<Isa> none = {}, one = all<Isa>(1.0f);
  v = Isa::clamp(v, all<Isa>(lo), all<Isa>(hi));
  Floats<Isa> r = nearest<Isa>(v);
  const Floats<Isa> rest = v - r;
  r += ((rest == 0.5f) & (v > 0.0f)) ? one : none;
  r -= ((rest == -0.5f) & (v < 0.0f)) ? one : none;
  return r;
}

template <class Isa>
CARAT_SEARCH Floats<Isa> inverse_of_all(Floats<Isa> step) {
  return step != 0.0f ? 1.0f / step : Floats<Isa>{};
}

// Each lane another candidate, all for the same elements. wx = w * x; w is not used where all
// count alike, wx being x there.
template <class Isa, bool kWeighted>
struct Elements {
  const float* x_;
  const float* w_;
  const float* wx_;
  CARAT_SEARCH Floats<Isa> x(int i) const { return all<Isa>(x_[i]); }
  CARAT_SEARCH Floats<Isa> w(int i) const { return all<Isa>(w_[i]); }
  CARAT_SEARCH Floats<Isa> wx(int i) const { return all<Isa>(kWeighted ? wx_[i] : x_[i]); }
};

// Each lane another sub-block: element i of all of them side by side.
template <class Isa, bool kWeighted>
struct Columns {
  const float* x_;
  const float* w_;
  CARAT_SEARCH Floats<Isa> x(int i) const { return load<Floats<Isa>>(x_ + i * Isa::kWidth); }
  CARAT_SEARCH Floats<Isa> w(int i) const { return load<Floats<Isa>>(w_ + i * Isa::kWidth); }
  CARAT_SEARCH Floats<Isa> wx(int i) const { return kWeighted ? w(i) * x(i) : x(i); }
};

// The sum of each lane's four.
template <class Vector>
CARAT_SEARCH Vector total(const Vector (&sums)[4]) {
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// 0, 1, 2..
struct Places {
  alignas(64) float place[128] = {};
  constexpr Places() {
    for (int i = 0; i < 128; ++i) place[i] = static_cast<float>(i);
  }
};
constexpr Places kPlaces;

// compress of an Isa without an instruction for it.
template <class Isa>
CARAT_SEARCH int compress_lanes(float* to, Floats<Isa> v, Ints<Isa> keep) {
  int n = 0;
  for (int l = 0; l < Isa::kWidth; ++l) {
    to[n] = v[l];
    n -= keep[l];
  }
  return n;
}

}  // namespace
}  // namespace carat::quant::search
