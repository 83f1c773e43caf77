// Recovery of 4-bit blocks from weights that were on a 4-bit lattice before they were rounded.
//
// A checkpoint trained for Q4_0 holds, in every block of 32 weights, d * q with one scale d and
// codes q in -8..7, rounded to bfloat16 when it was exported. Rounding hides d; it is recovered
// here without loss. A weight w with code q tells that d lies in an interval: all d for which
// round(d * q) == w. A block is on the lattice if and only if some binary16 number lies in the
// intersection of its 32 intervals, and any such number reproduces every weight bit for bit.
//
// The codes follow from the number of steps k (1..8) of the weight of largest magnitude: that
// weight fixes d to about 2^-8, so every other code is the rounded quotient. All eight k are tried.
//
// Where several blocks reproduce the weights, the choice is, in this order:
//   1. the extremum has code -8 (what llama.cpp's and Google's Q4_0 rule trains), else 7 (the
//      absmax/7 rule), else 6..1; below 8 steps d is positive;
//   2. a scale that is exact in bfloat16 too (what absmax/7 training stores, and what llama.cpp's
//      quantizer would find), else the one nearest the middle of the interval.
#pragma once

#include <cstdint>
#include <span>

#include "quant/blocks.h"

namespace carat::convert {

// The precision to which d * q was rounded when the weights were written.
enum class Grid : uint8_t {
  kBF16,
  kF16,
  kF32,  // products of a binary16 scale are exact in float: no rounding at all
};

// The training rule that a block looks like. A block of few distinct codes may fit several; the
// first in this order is counted.
enum class Rule : uint8_t {
  kNone,     // on no lattice with a binary16 scale
  kZero,     // all weights are zero
  kSigned8,  // the extremum is -8 steps
  kAbsmax7,  // the extremum is 7 steps of a positive d
  kOther,    // peak below 7
};

// Scales that are too coarse, too small or too large for binary16 but would do in a wider type.
enum class WiderScale : uint8_t { kNone, kBF16, kF32 };

struct Recovered {
  quant::BlockQ4_0 block = {};
  Rule rule = Rule::kNone;
  int peak = 0;  // steps of the extremum, 0..8
  bool scale_exact_in_bf16 = false;
  // Of a refused block: false if surely no scale of any type would do, so that find_wider_scale
  // need not be asked.
  bool may_have_wider_scale = false;
};

// Recovers the block that reproduces w[32] on `grid`. False, with rule kNone, if there is none (or
// a weight is not finite).
[[nodiscard]] bool recover_block(const float* w, Grid grid, Recovered* out) noexcept;

// For a block that recover_block refuses: whether a scale of a wider type would reproduce it. For
// kF32 the products are rounded to float before they are rounded to `grid`.
[[nodiscard]] WiderScale find_wider_scale(const float* w, Grid grid) noexcept;

// The finest description of n values: kBF16 if all of them are bfloat16 numbers, else kF16 if all
// are binary16 numbers, else kF32.
[[nodiscard]] Grid grid_of(const float* w, int64_t n) noexcept;

// x as it would be stored on the grid.
[[nodiscard]] float round_to_grid(float x, Grid grid) noexcept;

}  // namespace carat::convert
