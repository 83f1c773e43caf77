#include "audit/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace carat::audit {
namespace {

constexpr double kLowestExponent = -700;  // e^-700 beside 1, which every sum holds, is nothing
constexpr size_t kBlock = 128;

// Four at a time on every machine; compilers split what is wider than a register.
constexpr size_t kLanes = 4;
using Doubles = double __attribute__((vector_size(kLanes * sizeof(double))));
using Words = uint64_t __attribute__((vector_size(kLanes * sizeof(double))));
static_assert(kBlock % kLanes == 0);

// exp[i] = e^x[i] for x <= 0, within an ulp; not-a-number for one. Of plain sums and
// products, so that it is the same everywhere.
[[gnu::always_inline]] inline void exp_of_negatives(const double (&xs)[kBlock],
                                                    double (&out)[kBlock]) {
  constexpr double kLog2E = 1.4426950408889634;
  // The high part has 21 zero bits: its products with integers of 11 bits are exact.
  constexpr double kLn2High = 6.93147180369123816490e-01;
  constexpr double kLn2Low = 1.90821492927058770002e-10;
  constexpr double kRound = 0x1.8p52;
  for (size_t i = 0; i < kBlock; i += kLanes) {
    Doubles x;
    std::memcpy(&x, xs + i, sizeof x);
    const Doubles shifted = x * kLog2E + kRound;
    const Doubles n = shifted - kRound;
    const Doubles r = (x - n * kLn2High) - n * kLn2Low;
    // Taylor's series on |r| <= ln(2) / 2 as a sum of pairs, pairs of pairs and so on.
    const Doubles r2 = r * r;
    const Doubles r4 = r2 * r2;
    const Doubles a = (0.5 + r * (1.0 / 6)) + r2 * (1.0 / 24 + r * (1.0 / 120));
    const Doubles b = (1.0 / 720 + r * (1.0 / 5040)) + r2 * (1.0 / 40320 + r * (1.0 / 362880));
    const Doubles c =
        (1.0 / 3628800 + r * (1.0 / 39916800)) + r2 * (1.0 / 479001600 + r * (1.0 / 6227020800));
    const Doubles y = 1 + (r + r2 * (a + r4 * (b + r4 * c)));
    // 2^n into the exponent's bits; n is in the low bits of `shifted`.
    const Doubles power = (Doubles)(((Words)shifted + 1023) << 52);
    const Words drop = (Words)(x < kLowestExponent);
    const Words bits = (Words)(y * power) & ~drop;
    std::memcpy(out + i, &bits, sizeof bits);
  }
}

// out[i] = logits[i] - top, for a block or the rest of a row.
[[gnu::always_inline]] inline void shift(std::span<const float> logits, double top,
                                         double (&out)[kBlock]) {
  using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
  if (logits.size() < kBlock) {
    for (size_t i = 0; i < logits.size(); ++i) out[i] = static_cast<double>(logits[i]) - top;
    return;
  }
  for (size_t i = 0; i < kBlock; i += kLanes) {
    Floats x;
    std::memcpy(&x, logits.data() + i, sizeof x);
    const Doubles y = __builtin_convertvector(x, Doubles) - top;
    std::memcpy(out + i, &y, sizeof y);
  }
}

struct Top {
  std::array<float, kTopCompared> logit;
  std::array<int32_t, kTopCompared> token;
};

void insert(Top& top, float logit, int32_t token) {
  int at = kTopCompared - 1;
  for (; at > 0 && logit > top.logit[static_cast<size_t>(at - 1)]; --at) {
    top.logit[static_cast<size_t>(at)] = top.logit[static_cast<size_t>(at - 1)];
    top.token[static_cast<size_t>(at)] = top.token[static_cast<size_t>(at - 1)];
  }
  top.logit[static_cast<size_t>(at)] = logit;
  top.token[static_cast<size_t>(at)] = token;
}

// Whole blocks are passed over while nothing in them is above the fifth.
Top find_top(std::span<const float> row) {
  Top top;
  top.logit.fill(-std::numeric_limits<float>::infinity());
  top.token.fill(-1);
  for (size_t begin = 0; begin < row.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, row.size() - begin);
    const float* const x = row.data() + begin;
    if (n == kBlock) {
      const float fifth = top.logit[kTopCompared - 1];
      int above = 0;
      for (size_t i = 0; i < kBlock; ++i) above |= static_cast<int>(x[i] > fifth);
      if (above == 0) continue;
    }
    for (size_t i = 0; i < n; ++i) {
      if (x[i] > top.logit[kTopCompared - 1]) insert(top, x[i], static_cast<int32_t>(begin + i));
    }
  }
  return top;
}

// Sums over the vocabulary of e^x, e^x x, and with the candidate's y beside the reference's x, of
// e^y and e^x (x - y). x and y are logits less their maximum.
struct Sums {
  double reference = 0, candidate = 0;
  double log_weighted = 0, difference = 0;
};

[[gnu::always_inline]] inline Sums sum_up_inline(std::span<const float> reference,
                                                 double reference_top,
                                                 std::span<const float> candidate,
                                                 double candidate_top) {
  Sums s;
  double x[kBlock] = {}, y[kBlock] = {}, p[kBlock], q[kBlock];
  for (size_t begin = 0; begin < reference.size(); begin += kBlock) {
    const size_t n = std::min(kBlock, reference.size() - begin);
    shift(reference.subspan(begin, n), reference_top, x);
    shift(candidate.subspan(begin, n), candidate_top, y);
    exp_of_negatives(x, p);
    exp_of_negatives(y, q);
    for (size_t i = 0; i < n; ++i) {
      s.reference += p[i];
      s.candidate += q[i];
      if (p[i] == 0) continue;  // adds nothing, though its logarithm may be infinite
      s.log_weighted += p[i] * x[i];
      s.difference += p[i] * (x[i] - y[i]);
    }
  }
  return s;
}

// The same sums in the same order, with wider registers: no fused multiply-add.
#ifdef __x86_64__
[[gnu::target("avx2")]] Sums sum_up_avx2(std::span<const float> reference, double reference_top,
                                         std::span<const float> candidate, double candidate_top) {
  return sum_up_inline(reference, reference_top, candidate, candidate_top);
}
#endif

Sums sum_up(std::span<const float> reference, double reference_top,
            std::span<const float> candidate, double candidate_top) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) {
    return sum_up_avx2(reference, reference_top, candidate, candidate_top);
  }
#endif
  return sum_up_inline(reference, reference_top, candidate, candidate_top);
}

std::array<Likely, kTopKept> likely(const Top& top, double log_sum) {
  std::array<Likely, kTopKept> out;
  for (size_t i = 0; i < out.size() && top.token[i] >= 0; ++i) {
    out[i] = {top.token[i],
              static_cast<float>(std::exp(static_cast<double>(top.logit[i]) - log_sum))};
  }
  return out;
}

float overlap(const Top& reference, const Top& candidate) {
  int possible = 0;
  int shared = 0;
  for (const int32_t token : reference.token) {
    if (token < 0) continue;
    ++possible;
    shared +=
        std::find(candidate.token.begin(), candidate.token.end(), token) != candidate.token.end();
  }
  return possible == 0 ? 0 : static_cast<float>(shared) / static_cast<float>(possible);
}

}  // namespace

double Position::delta_p() const { return std::exp(-candidate_nll) - std::exp(-reference_nll); }

int32_t argmax(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

Position compare_position(std::span<const float> reference, std::span<const float> candidate,
                          int32_t next) {
  CHECK(!reference.empty() && reference.size() == candidate.size());
  CHECK(next >= 0 && static_cast<size_t>(next) < reference.size());
  const Top reference_top = find_top(reference);
  const Top candidate_top = find_top(candidate);
  const double reference_max = reference_top.logit[0];
  const double candidate_max = candidate_top.logit[0];
  const Sums s = sum_up(reference, reference_max, candidate, candidate_max);
  const double reference_log = std::log(s.reference);
  const double candidate_log = std::log(s.candidate);
  const double kld = s.difference / s.reference + (candidate_log - reference_log);
  const double entropy = reference_log - s.log_weighted / s.reference;
  const auto n = static_cast<size_t>(next);
  return {.kld = kld < 0 ? 0 : kld,  // rounding may leave -1e-17; not-a-number passes through
          .reference_nll = reference_max + reference_log - static_cast<double>(reference[n]),
          .candidate_nll = candidate_max + candidate_log - static_cast<double>(candidate[n]),
          .entropy = static_cast<float>(entropy < 0 ? 0 : entropy),
          .top5_overlap = overlap(reference_top, candidate_top),
          .next = next,
          .index = 0,
          .reference_top = likely(reference_top, reference_max + reference_log),
          .candidate_top = likely(candidate_top, candidate_max + candidate_log)};
}

}  // namespace carat::audit
