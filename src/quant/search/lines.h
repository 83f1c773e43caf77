// Lines (value = step * code + offset, codes 0..hi) against elements: what they lose, and the sums
// that a least-squares line is made of. A lane is a line.
#pragma once

#include "quant/search/vectors.h"

namespace carat::quant::search {
namespace {

template <class Isa>
struct LineSums {
  Floats<Isa> q, xq, qq;  // of w * code, w * x * code, w * code^2
  Floats<Isa> error;
};

template <class Isa, bool kWeighted, int kElements, bool kSums, bool kError, class Source>
CARAT_SEARCH LineSums<Isa> measure(const Source& source, Floats<Isa> step, Floats<Isa> offset,
                                   float hi) {
  using V = Floats<Isa>;
  const V inverse = inverse_of_all<Isa>(step), low = {}, high = all<Isa>(hi);
  V q_sum[4], xq_sum[4], qq_sum[4], errors[4];
  for (int l = 0; l < 4; ++l) {
    V q = {}, xq = {}, qq = {}, error = {};
    for (int i = l; i < kElements; i += 4) {
      const V x = source.x(i);
      const V code = nearest_codes<Isa>((x - offset) * inverse, low, high);
      if constexpr (kSums) {
        const V wq = kWeighted ? source.w(i) * code : code;
        q += wq;
        xq += source.wx(i) * code;
        qq += wq * code;
      }
      if constexpr (kError) {
        const V e = x - (step * code + offset);
        error += (kWeighted ? source.w(i) * e : e) * e;
      }
    }
    q_sum[l] = q;
    xq_sum[l] = xq;
    qq_sum[l] = qq;
    errors[l] = error;
  }
  LineSums<Isa> sums = {};
  if constexpr (kSums) {
    sums.q = total(q_sum);
    sums.xq = total(xq_sum);
    sums.qq = total(qq_sum);
  }
  if constexpr (kError) sums.error = total(errors);
  return sums;
}

// Sums of w and w * x.
struct Weight {
  float w, wx;
};

template <bool kWeighted, int kElements>
CARAT_SEARCH Weight weight_of(const float* w, const float* wx) {
  float w_sum[4] = {}, wx_sum[4] = {};
  for (int i = 0; i < kElements; ++i) {
    w_sum[i % 4] += kWeighted ? w[i] : 1.0f;
    wx_sum[i % 4] += wx[i];
  }
  return {total(w_sum), total(wx_sum)};
}

// Up to kMost lines, whole vectors of them to be read and written.
template <class Isa, int kMost>
struct LineList {
  static constexpr int kRoom = kMost + 16;
  int n = 0;
  alignas(64) float step[kRoom];
  alignas(64) float offset[kRoom];
  alignas(64) float order[kRoom];  // place among the candidates of a search

  // Those that `keep` names.
  CARAT_SEARCH void add(Floats<Isa> s, Floats<Isa> o, Floats<Isa> place, Ints<Isa> keep) {
    const int at = n;
    n += Isa::compress(step + at, s, keep);
    Isa::compress(offset + at, o, keep);
    Isa::compress(order + at, place, keep);
  }
  // Repeats the last line up to a whole vector.
  CARAT_SEARCH void fill_up() {
    for (int i = n; i % Isa::kWidth != 0; ++i) {
      step[i] = step[n - 1];
      offset[i] = offset[n - 1];
      order[i] = order[n - 1];
    }
  }
};

// Whether the lines from i on of one array are those from j on of another.
template <class Isa>
CARAT_SEARCH Ints<Isa> same_lines(const float* step, const float* offset, int i,
                                  const float* other_step, const float* other_offset, int j) {
  using V = Floats<Isa>;
  return (load<V>(step + i) == load<V>(other_step + j)) &
         (load<V>(offset + i) == load<V>(other_offset + j));
}

struct Least {
  float value;
  int at;  // the first that has it
};
// Of whole vectors, n > 0, without NaN.
template <class Isa>
CARAT_SEARCH Least least_of(const float* values, int n) {
  using V = Floats<Isa>;
  V least = load<V>(values), at = {}, base = {};
  for (int i = Isa::kWidth; i < n; i += Isa::kWidth) {
    const V v = load<V>(values + i);
    base += static_cast<float>(Isa::kWidth);
    const Ints<Isa> less = v < least;
    least = less ? v : least;
    at = less ? base : at;
  }
  float value = least[0], first = at[0];
  for (int l = 1; l < Isa::kWidth; ++l) {
    const float v = least[l], place = at[l] + static_cast<float>(l);
    const bool better = (v < value) | ((v == value) & (place < first));
    value = better ? v : value;
    first = better ? place : first;
  }
  return {value, static_cast<int>(first)};
}

}  // namespace
}  // namespace carat::quant::search
