#include "convert/lattice.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "convert/lanes.h"

namespace carat::convert {
namespace {

constexpr int kN = quant::kBlock;
constexpr uint32_t kInfinity = 0x7f800000u;
constexpr float kSmallestF16 = 0x1p-24f;
constexpr float kSmallestNormalF16 = 0x1p-14f;
constexpr float kLargestF16 = 65504.0f;

// Magnitudes of a block and how it is signed.
struct Magnitudes {
  alignas(16) int32_t bits[kN];  // of |w|
  alignas(16) int32_t sign[kN];  // only the sign bit
  uint32_t largest = 0;          // bits of the extremum
};

void take_magnitudes(const float* w, Magnitudes& m) noexcept {
  Ints largest = all(0);
  for (int j = 0; j < kN; j += kLanes) {
    const Ints u = load<Ints>(w + j);
    const Ints a = u & all(0x7fffffff);
    store(m.bits + j, a);
    store(m.sign + j, u ^ a);
    largest = a > largest ? a : largest;
  }
  int32_t r = largest[0];
  for (int l = 1; l < kLanes; ++l) r = std::max(r, largest[l]);
  m.largest = static_cast<uint32_t>(r);
}

// Where |d| may lie under one hypothesis; lo > hi: nowhere. Each end is off by at most two float
// roundings, 2^-23 of itself.
struct Bracket {
  float lo, hi;

  // Wide enough to hold every scale that reproduces the block.
  Bracket widened() const { return {lo * (1.0f - 0x1p-22f), hi * (1.0f + 0x1p-22f)}; }
  // So narrow that every scale inside reproduces the block.
  bool surely_holds(float d) const {
    return d >= lo * (1.0f + 0x1p-22f) && d <= hi * (1.0f - 0x1p-22f);
  }
};

// Ends of the numbers that round to |w| (bits u) on the grid. Of binary16 they may be too wide.
template <Grid grid>
inline Floats lower_edge(Ints u) noexcept {
  if constexpr (grid == Grid::kBF16) return as_floats(u - all(0x8000));
  if constexpr (grid == Grid::kF32) return as_floats(u);
  const Floats normal = as_floats(u - all(0x1000)), subnormal = as_floats(u) - all(0x1p-25f);
  return normal < subnormal ? normal : subnormal;
}
template <Grid grid>
inline Floats upper_edge(Ints u) noexcept {
  if constexpr (grid == Grid::kBF16) return as_floats(u + all(0x8000));
  if constexpr (grid == Grid::kF32) return as_floats(u);
  const Floats normal = as_floats(u + all(0x1000)), subnormal = as_floats(u) + all(0x1p-25f);
  return normal > subnormal ? normal : subnormal;
}

// Steps q of every magnitude if the extremum has k, and the intersection of their intervals.
//
// A zero weight has q == 0; its edges times infinity are NaN or infinite and constrain nothing. A
// weight that is not zero but rounds to 0 steps gives lo == infinity.
template <Grid grid>
Bracket bracket(const Magnitudes& m, int k, float* q) noexcept {
  const Floats scale = all(static_cast<float>(k) / as_float(m.largest));
  Floats lo = all(0.0f), hi = all(as_float(kInfinity));
  for (int j = 0; j < kN; j += kLanes) {
    const Ints u = load<Ints>(m.bits + j);
    const Floats steps = round_to_even(as_floats(u) * scale);
    const Floats inverse = 1.0f / steps;
    const Floats a = lower_edge<grid>(u) * inverse;
    const Floats b = upper_edge<grid>(u) * inverse;
    store(q + j, steps);
    lo = a > lo ? a : lo;
    hi = b < hi ? b : hi;
  }
  Bracket r{lo[0], hi[0]};
  for (int l = 1; l < kLanes; ++l) {
    r.lo = lo[l] > r.lo ? lo[l] : r.lo;
    r.hi = hi[l] < r.hi ? hi[l] : r.hi;
  }
  return r;
}

// Whether every |w| is d * q rounded to the grid. d * q is exact: 11 bits times 4.
template <Grid grid>
bool reproduces(const Magnitudes& m, const float* q, float d) noexcept {
  Ints differs = all(0);
  for (int j = 0; j < kN; j += kLanes) {
    const Floats product = load<Floats>(q + j) * d;
    Ints rounded = as_ints(product);
    if constexpr (grid == Grid::kBF16) {
      rounded = (rounded + all(0x7fff) + ((rounded >> 16) & all(1))) & all(-0x10000);
    } else if constexpr (grid == Grid::kF16) {
      for (int l = 0; l < kLanes; ++l) {
        rounded[l] = std::bit_cast<int32_t>(to_float(to_f16(product[l])));
      }
    }
    differs |= rounded ^ load<Ints>(m.bits + j);
  }
  return (differs[0] | differs[1] | differs[2] | differs[3]) == 0;
}

// The next binary16 number above (below) a positive one.
inline F16 next(F16 d) noexcept { return {static_cast<uint16_t>(d.bits + 1)}; }
inline F16 previous(F16 d) noexcept { return {static_cast<uint16_t>(d.bits - 1)}; }

inline bool is_bf16(float x) noexcept { return (as_bits(x) & 0xffffu) == 0; }

// A binary16 scale in the bracket that reproduces the block, or 0. The bracket holds at most some
// ten of them, because the extremum's own interval is no wider than 2^-7 of d.
template <Grid grid>
float find_scale(const Magnitudes& m, const float* q, const Bracket& sharp) noexcept {
  Bracket range = sharp.widened();
  range.lo = std::max(range.lo, kSmallestF16);
  range.hi = std::min(range.hi, kLargestF16);
  if (!(range.lo <= range.hi)) return 0.0f;

  const float middle = range.lo + 0.5f * (range.hi - range.lo);
  // The number nearest the middle that both types hold; if it lies outside, no other lies inside.
  const float shared = to_float(to_bf16(middle));
  const bool exact = shared >= kSmallestNormalF16 || to_float(to_f16(shared)) == shared;
  const auto tries = [&](float d) {
    return d >= range.lo && d <= range.hi && reproduces<grid>(m, q, d);
  };
  if (exact && tries(shared)) return shared;
  const F16 start = to_f16(middle);
  if (grid != Grid::kF16 && sharp.surely_holds(to_float(start))) return to_float(start);

  // All binary16 numbers, outwards from the middle.
  F16 up = start, down = previous(start);
  while (true) {
    const float a = to_float(up), b = to_float(down);
    const bool a_in = a <= range.hi, b_in = b >= range.lo && down.bits != 0xffffu;
    if (!a_in && !b_in) return 0.0f;
    const bool a_first = a_in && (!b_in || a - middle <= middle - b);
    const float d = a_first ? a : b;
    if (tries(d)) return d;
    if (a_first) {
      up = next(up);
    } else {
      down = previous(down);
    }
  }
}

// Whether a weight of 8 steps has the sign opposite to the extremum: +8 is not a code. Also tells
// the sign that d needs for the extremum to have -8.
bool has_both_extremes(const Magnitudes& m, const float* q, uint32_t* d_sign) noexcept {
  Ints positive = all(0), negative = all(0);
  for (int j = 0; j < kN; j += kLanes) {
    const Ints is_peak = load<Floats>(q + j) == all(8.0f);
    const Ints sign = load<Ints>(m.sign + j) >> 31;
    negative |= is_peak & sign;
    positive |= is_peak & ~sign;
  }
  const bool has_positive = (positive[0] | positive[1] | positive[2] | positive[3]) != 0;
  const bool has_negative = (negative[0] | negative[1] | negative[2] | negative[3]) != 0;
  *d_sign = has_positive ? 0x80000000u : 0u;  // +8 steps of |d| is -8 steps of a negative d
  return has_positive && has_negative;
}

void pack(const Magnitudes& m, const float* q, float d, uint32_t d_sign, int k,
          Recovered* out) noexcept {
  const Ints flip = all(static_cast<int32_t>(d_sign));
  for (int j = 0; j < kN / 2; j += kLanes) {
    const auto codes = [&](int i) {
      const Ints sign = load<Ints>(m.sign + i) ^ flip;
      return __builtin_convertvector(as_floats(as_ints(load<Floats>(q + i)) | sign), Ints) + all(8);
    };
    const Ints both = codes(j) | (codes(j + kN / 2) << 4);
    for (int l = 0; l < kLanes; ++l) out->block.qs[j + l] = static_cast<uint8_t>(both[l]);
  }
  out->may_have_wider_scale = false;
  out->block.d = {static_cast<uint16_t>(to_f16(d).bits | (d_sign >> 16))};
  out->peak = k;
  out->rule = k == 8 ? Rule::kSigned8 : k == 7 ? Rule::kAbsmax7 : Rule::kOther;
  out->scale_exact_in_bf16 = is_bf16(d);
}

template <Grid grid>
bool recover(const float* w, Recovered* out) noexcept {
  Magnitudes m;
  take_magnitudes(w, m);
  *out = Recovered{};
  if (m.largest >= kInfinity) return false;
  if (m.largest == 0) {
    std::fill(out->block.qs, out->block.qs + kN / 2, uint8_t{0x88});
    out->rule = Rule::kZero;
    out->scale_exact_in_bf16 = true;
    return true;
  }
  if (as_float(m.largest) < 0.5f * kSmallestF16) {
    out->may_have_wider_scale = true;
    return false;
  }

  alignas(16) float q[kN];
  for (int k = 8; k >= 1; --k) {
    const Bracket range = bracket<grid>(m, k, q);
    const Bracket widened = range.widened();
    if (!(widened.lo <= widened.hi)) continue;
    out->may_have_wider_scale = true;
    uint32_t d_sign = 0;
    if (k == 8 && has_both_extremes(m, q, &d_sign)) continue;
    const float d = find_scale<grid>(m, q, range);
    if (d == 0.0f) continue;
    pack(m, q, d, d_sign, k, out);
    return true;
  }
  return false;
}

// Ends of the numbers that round to |w| on the grid, also where a product is rounded to float
// first.
template <Grid grid>
std::pair<double, double> edges(uint32_t bits) noexcept {
  if constexpr (grid == Grid::kF32) {
    const double half_step = 0.5 * (static_cast<double>(as_float(bits + 1)) - as_float(bits));
    return {as_float(bits) - half_step, as_float(bits) + half_step};
  }
  const Ints u = all(static_cast<int32_t>(bits));
  return {lower_edge<grid>(u)[0], upper_edge<grid>(u)[0]};
}

inline bool is_positive_number(uint32_t bits) noexcept { return bits - 1u < kInfinity - 1u; }

// Of the floats in [lo, hi]: the bfloat16 numbers nearest the middle, then the middle, then those
// at the lower end; in a narrow interval these are all there are.
template <Grid grid>
WiderScale wider_in(const Magnitudes& m, const float* q, double lo, double hi) noexcept {
  const float middle = static_cast<float>(lo + 0.5 * (hi - lo));
  const uint32_t near = as_bits(to_float(to_bf16(middle)));
  for (const uint32_t u : {near, near - 0x10000u, near + 0x10000u}) {
    if (is_positive_number(u) && reproduces<grid>(m, q, as_float(u))) return WiderScale::kBF16;
  }
  if (is_positive_number(as_bits(middle)) && reproduces<grid>(m, q, middle)) {
    return WiderScale::kF32;
  }
  uint32_t u = as_bits(static_cast<float>(lo));
  if (u > 0) --u;
  for (int tries = 0; tries < 16 && as_float(u) <= hi; ++tries, ++u) {
    if (is_positive_number(u) && reproduces<grid>(m, q, as_float(u))) return WiderScale::kF32;
  }
  return WiderScale::kNone;
}

// A scale of any width. Double holds every edge and every product of a float scale exactly.
template <Grid grid>
WiderScale wider(const float* w) noexcept {
  Magnitudes m;
  take_magnitudes(w, m);
  if (m.largest >= kInfinity || m.largest == 0) return WiderScale::kNone;
  const double largest = as_float(m.largest);
  WiderScale found = WiderScale::kNone;
  for (int k = 8; k >= 1; --k) {
    alignas(16) float q[kN];
    double lo = 0, hi = std::numeric_limits<double>::infinity();
    for (int j = 0; j < kN; ++j) {
      const double magnitude = as_float(static_cast<uint32_t>(m.bits[j]));
      q[j] = static_cast<float>(std::nearbyint(magnitude * k / largest));
      if (m.bits[j] == 0) continue;
      const auto [below, above] = edges<grid>(static_cast<uint32_t>(m.bits[j]));
      lo = std::max(lo, below / q[j]);
      hi = std::min(hi, above / q[j]);
    }
    uint32_t d_sign;
    if (lo > hi * (1 + 0x1p-40) || (k == 8 && has_both_extremes(m, q, &d_sign))) continue;
    const WiderScale here = wider_in<grid>(m, q, lo, hi);
    if (here == WiderScale::kBF16) return here;
    if (here != WiderScale::kNone) found = here;
  }
  return found;
}

}  // namespace

bool recover_block(const float* w, Grid grid, Recovered* out) noexcept {
  switch (grid) {
    case Grid::kBF16:
      return recover<Grid::kBF16>(w, out);
    case Grid::kF16:
      return recover<Grid::kF16>(w, out);
    case Grid::kF32:
      return recover<Grid::kF32>(w, out);
  }
  return false;
}

WiderScale find_wider_scale(const float* w, Grid grid) noexcept {
  switch (grid) {
    case Grid::kBF16:
      return wider<Grid::kBF16>(w);
    case Grid::kF16:
      return wider<Grid::kF16>(w);
    case Grid::kF32:
      return wider<Grid::kF32>(w);
  }
  return WiderScale::kNone;
}

Grid grid_of(const float* w, int64_t n) noexcept {
  uint32_t low = 0;
  bool binary16 = true;
  for (int64_t i = 0; i < n; ++i) low |= as_bits(w[i]) & 0xffffu;
  if (low == 0) return Grid::kBF16;
  for (int64_t i = 0; i < n && binary16; ++i) binary16 = to_float(to_f16(w[i])) == w[i];
  return binary16 ? Grid::kF16 : Grid::kF32;
}

float round_to_grid(float x, Grid grid) noexcept {
  switch (grid) {
    case Grid::kBF16:
      return to_float(to_bf16(x));
    case Grid::kF16:
      return to_float(to_f16(x));
    case Grid::kF32:
      return x;
  }
  return x;
}

}  // namespace carat::convert
