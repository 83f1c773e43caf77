// Checkpoints of 4-bit codes whose scales are 8/7.5 too large.
//
// Weights trained on the Q4_0 lattice have, in every group of 32, a weight of largest magnitude
// that is 8 steps of the group's scale. An exporter that takes largest magnitude / 7.5 for the
// scale finds k * 7.5 / 8 steps for k, which rounds to k for -7 <= k <= 7. The peak itself becomes
// 7.5 steps but for the rounding of scale and quotient: +8 becomes 7, the largest code; -8 becomes
// -8, or -7 where the scale was rounded up. So the codes of a group are known
//   * if one of them is -8: that is the peak, and a 7 is a 7;
//   * if none is -8 and just one is 7 or -7: that was the peak;
// and they are not known if several are 7 or -7: one of them was 8 at least. The step is the scale
// * 7.5 / 8, as well as the scale's own type tells it. Nothing of this is true of weights that do
// not come from that lattice: compare with the checkpoint that was exported to prove it
// (compare_groups).
#pragma once

#include <array>
#include <cstdint>

#include "base/json.h"

namespace carat::convert {

inline constexpr int64_t kShiftGroup = 32;
inline constexpr float kShiftBack = 7.5f / 8.0f;

struct UnshiftedGroup {
  enum class Kind : uint8_t {
    kZero,       // all codes are 0
    kProven,     // the codes are those of the lattice
    kAmbiguous,  // several codes of 7 or -7: they are left as they are
    kForeign,    // no -8, 7 or -7 occurs: another rule made this group
  } kind = Kind::kZero;
  // weight = d * code. A peak of +8 steps is the code -8 of a negative d, as in Q4_0.
  float d = 0;
  std::array<int8_t, kShiftGroup> codes = {};  // -8..7
};

// What a group was before the export; its own codes and scale if it is kForeign. codes[32], -8..7.
[[nodiscard]] UnshiftedGroup undo_shift(const int8_t* codes, float scale) noexcept;

// The step of a group as a BF16 number, which every 4-bit format holds: one that the exporter would
// have turned into just this scale, if there is one beside `d` (UnshiftedGroup::d, with its sign).
[[nodiscard]] float unshifted_step(float d, float scale) noexcept;

// Groups by what their codes alone tell.
struct ShiftStats {
  int64_t groups = 0;
  int64_t zero = 0, with_minus8 = 0, single_peak = 0, ambiguous = 0, foreign = 0;
  int64_t negative_scales = 0;

  // Whether every group is as the exporter leaves it. A checkpoint with right scales is not: there
  // a peak of +8 has a negative scale.
  bool follows_min_max() const;
  int64_t proven() const { return zero + with_minus8 + single_peak; }
  void add(const ShiftStats& other);
};
// n_groups groups one after another. Adds to `stats`.
void count_groups(const int8_t* codes, const float* scales, int64_t n_groups, ShiftStats& stats);

// Groups beside the weights that they were made of.
struct ShiftPairs {
  int64_t groups = 0;  // that are not all zero
  // All weights are within 1/64 (and the clipped peak) of: code * scale * 7.5 / 8; code * scale;
  // neither.
  int64_t shifted = 0, as_stored = 0, neither = 0;
  // Of the shifted ones: codes that undo_shift calls proven, and how many of those groups agree
  // with the weights (all of them, unless it is wrong).
  int64_t proven = 0, proven_right = 0;

  bool all_shifted() const { return groups > 0 && shifted == groups; }
  void add(const ShiftPairs& other);
};
// weights[n_groups * 32]. Adds to `pairs`.
void compare_groups(const int8_t* codes, const float* scales, const float* weights,
                    int64_t n_groups, ShiftPairs& pairs);

Json to_json(const ShiftStats& stats);
Json to_json(const ShiftPairs& pairs);

}  // namespace carat::convert
