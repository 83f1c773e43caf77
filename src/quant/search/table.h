// The encoders' searches for each instruction set. All give the same bits; they differ in how many
// candidates or sub-blocks they treat side by side.
#pragma once

#include <cstdint>
#include <span>

#include "quant/affine_fit.h"
#include "quant/blocks.h"
#include "quant/symmetric_fit.h"

namespace carat::quant::search {

inline constexpr int kMaxSubs = 16;
inline constexpr int kColumnRoom = 2 * kSuperBlock;

// A block's elements, element i of the sub-blocks side by side, as `columns` arranges them.
struct BlockColumns {
  alignas(64) float x[kColumnRoom];
  alignas(64) float w[kColumnRoom];  // where weighted
  bool weighted;
};

// Codes: the nearest with these.
struct AffineDraft {
  float d = 0.0f, dmin = 0.0f;  // exactly binary16 values
  int scale[kMaxSubs] = {};
  int min[kMaxSubs] = {};
  double error = 0.0;  // sum of squared differences
};

// Sums of w times products of a = scale * code, b = min and x over a block. The order of additions
// is the machine's: what may depend on that is decided by sums in order.
struct AffineSums {
  double aa, bb, ab, xa, xb, xx;
};

struct SymmetricDraft {
  float d = 0.0f;  // exactly a binary16 value
  int scale[kMaxSubs] = {};
  double error = 0.0;
};

// Of w * x * (scale * code) and w * (scale * code)^2, in the machine's order.
struct SymmetricSums {
  double xq, qq;
};

// What a sub-block wants to be multiplied with, and by how much its error grows with the square of
// the distance from that.
struct SymmetricSteps {
  float step[kMaxSubs], growth[kMaxSubs];
};

// The outermost codes of a type.
struct CodeEnds {
  float lo, hi;
};

// value = step * code + offset
struct WeightedLine {
  float step, offset;
  float error;  // negative: there is none
};
inline constexpr int kLanesAtMost = 16;
inline constexpr int kMostLines = 96;
inline constexpr int kLineRoom = kMostLines + kLanesAtMost;

// w: null where all elements count alike.
struct Searches {
  const char* isa;
  // Step and minimum for each sub-block that lose least, were they stored exactly.
  void (*affine_lines)(const float* x, const float* w, AffineGrid grid, float* steps, float* mins);
  // Arranges 256 floats for the functions below, whose sub-blocks have `sub` elements.
  void (*columns)(const float* from, int sub, float* to);
  // For draft.d and draft.dmin: scales, minimums and the error.
  void (*affine_scales)(const BlockColumns&, AffineGrid grid, const float* steps, const float* mins,
                        AffineDraft& draft);
  AffineSums (*affine_sums)(const BlockColumns&, AffineGrid grid, const AffineDraft& draft);

  // `found`: the steps that lose least; `plain`: those of the elements of largest magnitude.
  void (*symmetric_steps)(const BlockColumns&, SymmetricGrid grid, SymmetricSteps& found,
                          float* plain);
  // Of the d around `whole`, the one whose multiples are nearest to the steps.
  float (*least_rounding)(const SymmetricSteps& steps, SymmetricGrid grid, float whole);
  void (*symmetric_scales)(const BlockColumns&, SymmetricGrid grid, const float* steps,
                           SymmetricDraft& draft);
  SymmetricSums (*symmetric_sums)(const BlockColumns&, SymmetricGrid grid,
                                  const SymmetricDraft& draft);

  // Of 32 elements, whose extremum is not 0: the step that loses least.
  float (*iq4_step)(const float* x, const float* w, float extremum);
  // Scales -32..31 for eight steps; d is not 0.
  void (*iq4_scales)(const BlockColumns&, const float* steps, float d, int* scales);
  // Of 32 elements.
  void (*iq4_codes)(const float* x, float inverse, uint8_t* codes);

  // Of 32 weighted elements: the step that loses least, 0 if none gains; 1 / extremum is finite.
  float (*scaled_step)(const float* x, const float* w, CodeEnds ends, float extremum);
  // What n steps lose, n lines with codes 0..hi. Room for and values in whole vectors.
  void (*scaled_errors)(const float* x, const float* w, CodeEnds ends, const float* steps, int n,
                        float* errors);
  void (*line_errors)(const float* x, const float* w, float hi, const float* steps,
                      const float* offsets, int n, float* errors);
  // Refits n <= kMostLines lines in arrays of kLineRoom and puts the first that loses least into
  // `best` if it loses less.
  void (*refine_lines)(const float* x, const float* w, float hi, const float* steps,
                       const float* offsets, int n, WeightedLine& best);
};

// Those that this machine can run, the fastest first; the last are the portable ones.
[[nodiscard]] std::span<const Searches* const> supported_searches() noexcept;

// The fastest, or what use_searches chose.
[[nodiscard]] const Searches& searches() noexcept;

// For tests: null chooses the fastest again.
void use_searches(const Searches* chosen) noexcept;

}  // namespace carat::quant::search
