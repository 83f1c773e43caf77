// The block bootstrap: draws of whole chunks, with replacement.
//
// Positions of one chunk of text are alike; drawn one by one they would make intervals too narrow.
// A draw says how often it has each chunk; a figure of the draw is computed from sums per chunk, or
// for quantiles from counts over values sorted once. Intervals are 95 %: from the 2.5th to
// the 97.5th percentile of a figure's draws. Draws follow from the seed alone, and nothing depends
// on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "audit/figure.h"
#include "base/rng.h"
#include "base/thread_pool.h"

namespace carat::audit {

struct SummaryOptions {
  int64_t resamples = 1000;
  uint64_t seed = 1;
};

class ChunkDraws {
 public:
  // REQUIRES: chunks and options.resamples are positive.
  ChunkDraws(size_t chunks, const SummaryOptions& options);

  int64_t resamples() const { return options_.resamples; }

  // Calls f(draw, times) for every draw, `times` being how often it has each chunk. On the threads
  // of `pool`, which may be null: f may only write to what belongs to its draw. Every call draws
  // the same.
  template <class F>
  void for_each(ThreadPool* pool, F f) const {
    Rng rng(options_.seed);
    for (int64_t begin = 0; begin < options_.resamples; begin += kBatch) {
      const int64_t n = std::min(kBatch, options_.resamples - begin);
      const std::vector<uint32_t> times = draw(n, rng);
      auto some = [&](int64_t from, int64_t to, int) {
        for (int64_t i = from; i < to; ++i) {
          f(static_cast<size_t>(begin + i),
            std::span(times).subspan(static_cast<size_t>(i) * chunks_, chunks_));
        }
      };
      if (pool != nullptr) {
        pool->parallel_for(n, 1, some);
      } else {
        some(0, n, 0);
      }
    }
  }

 private:
  static constexpr int64_t kBatch = 64;
  std::vector<uint32_t> draw(int64_t n, Rng& rng) const;

  size_t chunks_;
  SummaryOptions options_;
};

// Sums of chunks, a row of columns each.
class ChunkSums {
 public:
  ChunkSums(size_t chunks, size_t columns)
      : columns_(columns), sums_(chunks * columns), chunks_(chunks) {}
  double& at(size_t chunk, size_t column) { return sums_[chunk * columns_ + column]; }
  double at(size_t chunk, size_t column) const { return sums_[chunk * columns_ + column]; }
  size_t chunks() const { return chunks_; }
  size_t columns() const { return columns_; }
  // The columns' totals over a draw.
  void total(std::span<const uint32_t> times, std::span<double> out) const;
  // Over every chunk once.
  std::vector<double> total() const;

 private:
  size_t columns_;
  std::vector<double> sums_;
  size_t chunks_;
};

// A column by another one, then transformed (null: not).
struct Ratio {
  size_t numerator = 0;
  size_t denominator = 0;
  double (*transform)(double) = nullptr;
  // Not-a-number if the denominator is 0.
  double of(std::span<const double> totals) const;
};

// Of each ratio. Draws in which its denominator is 0 do not count.
[[nodiscard]] std::vector<std::optional<Interval>> ratio_intervals(const ChunkSums& sums,
                                                                   std::span<const Ratio> ratios,
                                                                   const ChunkDraws& draws,
                                                                   ThreadPool* pool);

// Values in ascending order, each with its chunk.
struct RankedValues {
  std::vector<double> values;
  std::vector<uint32_t> chunks;  // of each value
  std::vector<uint32_t> counts;  // of each chunk: its values
};

[[nodiscard]] RankedValues rank(std::span<const std::vector<double>> values_of_chunks);

// Quantiles of the multiset in which every value of chunk c appears times[c] times: linear
// interpolation at rank p * (n - 1). REQUIRES: `wanted` ascending, in [0, 1]; a value appears.
void weighted_quantiles(const RankedValues& ranked, std::span<const uint32_t> times,
                        std::span<const double> wanted, std::span<double> out);

[[nodiscard]] std::vector<Interval> quantile_intervals(const RankedValues& ranked,
                                                       std::span<const double> wanted,
                                                       const ChunkDraws& draws, ThreadPool* pool);

// The 95 % interval of a figure's draws, which are sorted. REQUIRES: at least one.
[[nodiscard]] Interval percentile_interval(std::vector<double>& draws);

// Linear interpolation at rank p * (n - 1). REQUIRES: `sorted` ascending, not empty; 0 <= p <= 1.
[[nodiscard]] double quantile(std::span<const double> sorted, double p);

}  // namespace carat::audit
