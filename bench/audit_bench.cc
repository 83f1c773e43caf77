// The audit's statistics: how long a position and a summary take, and how often 95 % intervals hold
// the true value in simulated audits (the table of docs/fidelity.md).
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

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
  return 0;
}
