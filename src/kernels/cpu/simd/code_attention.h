// Attention over int8 pages for vector instruction sets: exact sums of 16-bit codes times page
// bytes. Scores and sums of values are the same product: a panel of bytes [step][16 lanes][4] times
// the codes of a query, 4 a step. K is read with lanes = places and steps along the head, V with
// lanes = elements of the head and steps along the places.
//
// The struct Isa, in an anonymous namespace, all members static and always inlined:
//   Ints, Floats     16 lanes; Eight: 8 floats; Mask: 16 flags
//   Bytes, Codes     a vector of a panel; the 4 codes of one step for all lanes
//   Sum              16 sums of products. start(n) begins at -n, where n = 128 * sum of the codes
//                    takes off the 128 that page bytes have too much; total(Sum) gives int32
//   kVectors, kQueries   size of the register tile
//   store_codes(p, Ints)  16 codes as int16, in the order that load_codes(p of one step) wants
// All sums are made modulo 2^32 and come out exact, because the sum of code * (byte - 128) stays
// below 2^31: 16383 * 128 * kMaxHeadDim. Places out of sight may hold any byte and are not used.
#pragma once

#include <cstdint>

#include "kernels/cpu/table.h"
#include "kernels/kv_pages.h"
#include "kernels/scalar/constants.h"

#ifndef CARAT_INLINE
#define CARAT_INLINE inline __attribute__((always_inline))
#endif

namespace carat::kernels::simd {
namespace {

constexpr int64_t kLine = 64;

// A panel's geometry in bytes, and what to fetch ahead while it is read.
struct Panel {
  const uint8_t* data;
  int64_t step;    // from one step to the next
  int64_t vector;  // from 16 lanes to the next 16
  int64_t steps;
  const uint8_t* next;  // or null
  int64_t lines;        // of next, in each step
};

template <class Isa, int kVectors, int kQueries>
CARAT_INLINE void multiply(const Panel& panel, const CodeRows& codes, int64_t query,
                           typename Isa::Ints (&out)[kQueries][kVectors]) {
  typename Isa::Sum sum[kQueries][kVectors];
  const int16_t* c[kQueries];
  for (int i = 0; i < kQueries; ++i) {
    c[i] = codes.codes + (query + i) * codes.stride;
    for (int v = 0; v < kVectors; ++v) sum[i][v] = Isa::start(codes.sums[query + i]);
  }
  const uint8_t* data = panel.data;
  const uint8_t* next = panel.next;
  for (int64_t s = 0; s < panel.steps; ++s, data += panel.step) {
    for (int64_t l = 0; l < panel.lines; ++l, next += kLine) __builtin_prefetch(next, 0, 2);
    typename Isa::Bytes bytes[kVectors];
    for (int v = 0; v < kVectors; ++v) bytes[v] = Isa::load_bytes(data + v * panel.vector);
    for (int i = 0; i < kQueries; ++i) {
      const typename Isa::Codes code = Isa::load_codes(c[i] + 4 * s);
      for (int v = 0; v < kVectors; ++v) Isa::add_products(sum[i][v], bytes[v], code);
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int v = 0; v < kVectors; ++v) out[i][v] = Isa::total(sum[i][v]);
  }
}

struct Rounding {
  float scale, inverse;  // inverse 0: all codes are 0
};

// bits: the largest magnitude as an integer, which orders NaN above infinity above the rest.
CARAT_INLINE Rounding rounding_for(uint32_t bits) {
  float max;
  __builtin_memcpy(&max, &bits, sizeof max);
  if (bits >= 0x7f800000u) return {__builtin_nanf(""), 0.0f};
  if (max < scalar::kQuantizeZero) return {0.0f, 0.0f};
  const float scale = max / 16383.0f;
  return {scale, 1.0f / scale};
}

constexpr int kSegmentVectors = static_cast<int>(kKvPageTokens / 16);

// Sums of one query's products to weights and their codes.
template <class Isa>
CARAT_INLINE void weigh(const int32_t* sums, float q_scale, const CodePage& page,
                        const Places& seen, int16_t* codes, float* code_scale, int32_t* code_sum,
                        float* max_out, float* sum_out) {
  using Floats = typename Isa::Floats;
  using Ints = typename Isa::Ints;
  typename Isa::Mask mask[kSegmentVectors];
  Floats score[kSegmentVectors];
  const Floats scale = Isa::splat(q_scale), lowest = Isa::splat(-__builtin_inff());
  Floats most = lowest;
  for (int v = 0; v < kSegmentVectors; ++v) {
    mask[v] = Isa::lanes(seen.begin - 16 * v, seen.end - 16 * v);
    const Floats s = Isa::mul(Isa::to_floats(Isa::load_ints(sums + 16 * v)),
                              Isa::mul(scale, Isa::load(page.k_scale + 16 * v)));
    score[v] = Isa::select(mask[v], s, lowest);
    // A NaN may or may not become the maximum; its own weight is NaN either way.
    most = Isa::max(score[v], most);
  }
  const float max = Isa::largest(most);
  const Floats m = Isa::splat(max), zero = Isa::splat(0.0f);
  typename Isa::Eight sum = Isa::zero_eight();
  Floats p[kSegmentVectors];
  Ints magnitude = Isa::zero_ints();
  for (int v = 0; v < kSegmentVectors; ++v) {
    // Places out of sight get exp(0) and then nothing: exp of -infinity would be slow.
    const Floats w =
        Isa::select(mask[v], Isa::exp(Isa::select(mask[v], Isa::sub(score[v], m), zero)), zero);
    sum = Isa::add_halves(sum, w);
    p[v] = Isa::select(mask[v], Isa::mul(w, Isa::load(page.v_scale + 16 * v)), zero);
    magnitude = Isa::max_ints(magnitude, Isa::magnitude(p[v]));
  }
  *max_out = max;
  *sum_out = Isa::add_lanes(sum);
  const Rounding r = rounding_for(Isa::largest_int(magnitude));
  *code_scale = r.scale;
  Ints total = Isa::zero_ints();
  const Floats inverse = Isa::splat(r.inverse);
  for (int v = 0; v < kSegmentVectors; ++v) {
    const Ints c = r.inverse != 0.0f ? Isa::round(Isa::mul(p[v], inverse)) : Isa::zero_ints();
    Isa::store_codes(codes + 16 * v, c);
    total = Isa::add_ints(total, c);
  }
  *code_sum = 128 * Isa::sum_ints(total);
}

template <class Isa, int kQueries>
CARAT_INLINE void weigh_queries(const CodeRows& q, int64_t query, const CodePage& page,
                                const Places* seen, int64_t steps, const uint8_t* next,
                                int64_t lines, const CodeRows& p, float* max, float* sum) {
  constexpr int kVectors = Isa::kVectors;
  static_assert(kSegmentVectors % kVectors == 0);
  int32_t sums[kQueries][kKvPageTokens];
  for (int v = 0; v < kSegmentVectors; v += kVectors) {
    const Panel panel{page.k + v * kLine, 4 * kKvPageTokens, kLine, steps, next, lines};
    typename Isa::Ints out[kQueries][kVectors];
    multiply<Isa, kVectors, kQueries>(panel, q, query, out);
    for (int i = 0; i < kQueries; ++i) {
      for (int j = 0; j < kVectors; ++j) Isa::store_ints(sums[i] + 16 * (v + j), out[i][j]);
    }
    if (next) next += steps * lines * kLine;
  }
  for (int64_t i = 0; i < kQueries; ++i) {
    const int64_t at = query + i;
    weigh<Isa>(sums[i], q.scales[at], page, seen[at], p.codes + at * p.stride, p.scales + at,
               p.sums + at, max + at, sum + at);
  }
}

template <class Isa>
CARAT_INLINE void weigh_all(const CodeRows& q, int64_t n_q, const CodePage& page,
                            const Places* seen, int64_t head_dim, const uint8_t* next,
                            const CodeRows& p, float* max, float* sum) {
  constexpr int kQueries = Isa::kQueries;
  constexpr int64_t kGroups = kSegmentVectors / Isa::kVectors;
  const int64_t steps = (head_dim + 3) / 4;
  // The next K is fetched evenly over all tiles; it has 4 lines for each step.
  const int64_t tiles = (n_q / kQueries + (n_q % kQueries > 1) + n_q % kQueries % 2) * kGroups;
  int64_t left = next ? 4 : 0;
  const int64_t lines = next ? (4 + tiles - 1) / tiles : 0;
  const auto take = [&](int64_t groups) {
    const int64_t here = left >= lines * groups ? lines : 0;
    left -= here * groups;
    return here;
  };
  int64_t i = 0;
  const auto run = [&](auto queries) {
    constexpr int kCount = decltype(queries)::value;
    for (; i + kCount <= n_q; i += kCount) {
      const int64_t here = take(kGroups);
      weigh_queries<Isa, kCount>(q, i, page, seen, steps, here > 0 ? next : nullptr, here, p, max,
                                 sum);
      if (here > 0) next += steps * here * kGroups * kLine;
    }
  };
  run(typename Isa::template Count<kQueries>{});
  if constexpr (kQueries > 2) run(typename Isa::template Count<2>{});
  run(typename Isa::template Count<1>{});
}

template <class Isa, int kVectors, int kQueries>
CARAT_INLINE void join_tile(const CodeRows& p, int64_t query, const Panel& panel, int64_t last,
                            const float* keep, const float* take, float* totals, int64_t stride) {
  typename Isa::Ints sums[kQueries][kVectors];
  multiply<Isa, kVectors, kQueries>(panel, p, query, sums);
  for (int i = 0; i < kQueries; ++i) {
    const typename Isa::Floats scale = Isa::splat(p.scales[query + i]);
    const typename Isa::Floats k = Isa::splat(keep[query + i]), t = Isa::splat(take[query + i]);
    for (int v = 0; v < kVectors; ++v) {
      float* to = totals + (query + i) * stride + 16 * v;
      const typename Isa::Floats x = Isa::mul(Isa::to_floats(sums[i][v]), scale);
      if (v + 1 < kVectors || last == 16) {
        Isa::store(to, Isa::fma(x, t, Isa::mul(Isa::load(to), k)));
      } else {
        Isa::store(to, Isa::fma(x, t, Isa::mul(Isa::load(to, last), k)), last);
      }
    }
  }
}

template <class Isa, int kVectors>
CARAT_INLINE void join_columns(const CodeRows& p, int64_t n_q, Panel panel, int64_t last,
                               const float* keep, const float* take, float* totals,
                               int64_t stride) {
  int64_t i = 0;
  const auto run = [&](auto queries) {
    constexpr int kCount = decltype(queries)::value;
    for (; i + kCount <= n_q; i += kCount) {
      join_tile<Isa, kVectors, kCount>(p, i, panel, last, keep, take, totals, stride);
      panel.lines = 0;
    }
  };
  run(typename Isa::template Count<Isa::kQueries>{});
  if constexpr (Isa::kQueries > 2) run(typename Isa::template Count<2>{});
  run(typename Isa::template Count<1>{});
}

template <class Isa>
CARAT_INLINE void join_all(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                           const uint8_t* next, const float* keep, const float* take, float* totals,
                           int64_t stride) {
  constexpr int64_t kSteps = kKvPageTokens / 4, kBlock = kSteps * kLine;
  const int64_t blocks = (n_dims + 15) / 16;
  const auto run = [&](int64_t begin, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    const int64_t end = begin + kVectors;
    const Panel panel{
        v + begin * kBlock, kLine, kBlock, kSteps, next ? next + begin * kBlock : nullptr,
        next ? kVectors : 0};
    join_columns<Isa, kVectors>(p, n_q, panel, end == blocks ? n_dims - (end - 1) * 16 : 16, keep,
                                take, totals + begin * 16, stride);
  };
  int64_t b = 0;
  for (; b + Isa::kVectors <= blocks; b += Isa::kVectors) {
    run(b, typename Isa::template Count<Isa::kVectors>{});
  }
  if constexpr (Isa::kVectors > 1) {
    for (; b < blocks; ++b) run(b, typename Isa::template Count<1>{});
  }
}

template <class Isa>
CARAT_INLINE void round_all(const float* rows, int64_t n, int64_t cols, const CodeRows& out) {
  for (int64_t i = 0; i < n; ++i, rows += cols) {
    typename Isa::Ints magnitude = Isa::zero_ints(), total = Isa::zero_ints();
    int64_t d = 0;
    for (; d + 16 <= cols; d += 16) {
      magnitude = Isa::max_ints(magnitude, Isa::magnitude(Isa::load(rows + d)));
    }
    const int64_t rest = cols - d;
    if (rest > 0) {
      magnitude = Isa::max_ints(magnitude, Isa::magnitude(Isa::load(rows + d, rest)));
    }
    const Rounding r = rounding_for(Isa::largest_int(magnitude));
    out.scales[i] = r.scale;
    int16_t* codes = out.codes + i * out.stride;
    const typename Isa::Floats inverse = Isa::splat(r.inverse);
    for (d = 0; d < cols; d += 16) {
      const typename Isa::Floats x =
          d + 16 <= cols ? Isa::load(rows + d) : Isa::load(rows + d, rest);
      // Numbers that are not finite must not reach the conversion.
      const typename Isa::Ints c =
          r.inverse != 0.0f ? Isa::round(Isa::mul(x, inverse)) : Isa::zero_ints();
      Isa::store_codes(codes + d, c);
      total = Isa::add_ints(total, c);
    }
    out.sums[i] = 128 * Isa::sum_ints(total);
  }
}

template <class Isa>
CARAT_INLINE void join_all_weights(float* total_max, float* total_sum, const float* max,
                                   const float* sum, int64_t n, float* keep, float* take) {
  const auto join = [&](int64_t i, auto load, auto store) {
    using Floats = typename Isa::Floats;
    const Floats old_max = load(total_max + i), new_max = load(max + i);
    const Floats most = Isa::max(new_max, old_max);  // the old one if either is NaN
    const Floats k = Isa::exp(Isa::sub(old_max, most)), t = Isa::exp(Isa::sub(new_max, most));
    store(keep + i, k);
    store(take + i, t);
    store(total_max + i, most);
    store(total_sum + i, Isa::fma(load(sum + i), t, Isa::mul(load(total_sum + i), k)));
  };
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    join(
        i, [](const float* p) { return Isa::load(p); },
        [](float* p, typename Isa::Floats x) { Isa::store(p, x); });
  }
  if (i < n) {
    const int64_t rest = n - i;
    join(
        i, [=](const float* p) { return Isa::load(p, rest); },
        [=](float* p, typename Isa::Floats x) { Isa::store(p, x, rest); });
  }
}

}  // namespace
}  // namespace carat::kernels::simd
