// The audit's statistics: how long a position and a summary take, and how often 95 % intervals hold
// the true value in simulated audits (the tables of docs/fidelity.md).
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <span>
#include <vector>

#include "audit/differences.h"
#include "audit/statistics.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

constexpr double kBetween = 0.6;  // standard deviations of the logarithm of a divergence
constexpr double kWithin = 1.2;
constexpr int kTrials = 300;

double seconds_of(const auto& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<std::vector<Position>> simulate(Rng& rng, int count, int length) {
  std::vector<std::vector<Position>> chunks(static_cast<size_t>(count));
  for (auto& chunk : chunks) {
    const double level = kBetween * rng.normal();
    for (int32_t i = 1; i <= length; ++i) {
      Position p;
      p.kld = std::exp(level + kWithin * rng.normal());
      p.index = i;
      chunk.push_back(p);
    }
  }
  return chunks;
}

void print_coverage(int count, int length) {
  const double sigma = std::hypot(kBetween, kWithin);
  struct Row {
    const char* name;
    Figure Summary::*figure;
    double truth;
    int held = 0;
    int known = 0;
  };
  Row rows[] = {{"mean", &Summary::mean_kld, std::exp(sigma * sigma / 2)},
                {"median", &Summary::median_kld, 1},
                {"p99", &Summary::p99_kld, std::exp(2.3263478740 * sigma)},
                {"p99.9", &Summary::p999_kld, std::exp(3.0902323062 * sigma)}};
  Rng rng(3);
  for (int trial = 0; trial < kTrials; ++trial) {
    const Summary s = summarize(simulate(rng, count, length),
                                {.resamples = 400, .seed = static_cast<uint64_t>(trial)});
    for (Row& row : rows) {
      const auto& interval = (s.*row.figure).interval;
      if (!interval) continue;
      ++row.known;
      row.held += interval->low <= row.truth && row.truth <= interval->high;
    }
  }
  fmt::print("{:4} chunks of {:4}:", count, length);
  for (const Row& row : rows) {
    if (row.known > 0) fmt::print("  {} {:.0f} %", row.name, 100.0 * row.held / row.known);
  }
  fmt::print("\n");
}

// Two candidates: nine tenths of the variance within chunks, and all between them, is the text's;
// the second one is further by 5 %.
void print_paired_coverage(int count, int length) {
  constexpr double kFurther = 1.05, kShared = 0.9;
  const double truth = (kFurther - 1) * std::exp((kBetween * kBetween + kWithin * kWithin) / 2);
  int held = 0, apart = 0, overlapping = 0;
  Rng rng(3);
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<std::vector<Position>> chunks[2];
    for (int c = 0; c < count; ++c) {
      for (auto& candidate : chunks) candidate.emplace_back();
      const double level = kBetween * rng.normal();
      for (int32_t i = 1; i <= length; ++i) {
        const double text = std::sqrt(kShared) * rng.normal();
        for (size_t k = 0; k < 2; ++k) {
          const double own = std::sqrt(1 - kShared) * rng.normal();
          Position p;
          p.kld = (k == 0 ? 1 : kFurther) * std::exp(level + kWithin * (text + own));
          p.index = i;
          chunks[k].back().push_back(p);
        }
      }
    }
    const SummaryOptions options = {.resamples = 400, .seed = static_cast<uint64_t>(trial)};
    const std::vector<std::span<const std::vector<Position>>> both = {chunks[0], chunks[1]};
    const Difference d = paired_differences(both, options).front();
    const Interval& i = *d.mean_kld.interval;
    held += i.low <= truth && truth <= i.high;
    apart += d.apart() == true;
    overlapping += summarize(chunks[0], options).mean_kld.interval->high >=
                   summarize(chunks[1], options).mean_kld.interval->low;
  }
  const auto percent = [](int n) { return 100.0 * n / kTrials; };
  fmt::print(
      "{:4} chunks of {:4}:  held {:.0f} %  apart {:.0f} %  separate ones overlap {:.0f} %\n",
      count, length, percent(held), percent(apart), percent(overlapping));
}

void print_speeds() {
  constexpr size_t kVocabulary = 262144;
  Rng rng(1);
  std::vector<float> a(kVocabulary), b(kVocabulary);
  for (size_t i = 0; i < kVocabulary; ++i) {
    a[i] = static_cast<float>(4 * rng.normal());
    b[i] = a[i] + static_cast<float>(0.3 * rng.normal());
  }
  double best = 1e9, kld = 0;
  for (int i = 0; i < 50; ++i) {
    best = std::min(best, seconds_of([&] { kld += compare_position(a, b, 5).kld; }));
  }
  fmt::print("a position of {} tokens: {:.2f} ms on one thread (KLD {:.4f})\n", kVocabulary,
             1e3 * best, kld / 50);
  const auto chunks = simulate(rng, 505, 496);
  Summary s;
  const double seconds = seconds_of([&] { s = summarize(chunks, {}); });
  fmt::print("all figures of {} positions in {} chunks: {:.2f} s on one thread\n", s.tokens,
             s.chunks, seconds);
}

}  // namespace
}  // namespace carat::audit

int main() {
  carat::audit::print_speeds();
  fmt::print("how often 95 % intervals hold the truth, {} trials\n", carat::audit::kTrials);
  carat::audit::print_coverage(120, 500);
  carat::audit::print_coverage(100, 100);
  carat::audit::print_coverage(20, 500);
  carat::audit::print_coverage(10, 1000);
  fmt::print("the same of the difference of two candidates, one of them 5 % further\n");
  carat::audit::print_paired_coverage(120, 500);
  carat::audit::print_paired_coverage(100, 100);
  carat::audit::print_paired_coverage(20, 500);
  carat::audit::print_paired_coverage(10, 1000);
  return 0;
}
