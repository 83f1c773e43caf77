#include "audit/bootstrap.h"

#include <cmath>
#include <limits>
#include <utility>

#include "base/error.h"

namespace carat::audit {

ChunkDraws::ChunkDraws(size_t chunks, const SummaryOptions& options)
    : chunks_(chunks), options_(options) {
  CHECK(chunks > 0 && options.resamples > 0);
}

std::vector<uint32_t> ChunkDraws::draw(int64_t n, Rng& rng) const {
  std::vector<uint32_t> times(static_cast<size_t>(n) * chunks_);
  for (size_t at = 0; at < times.size(); at += chunks_) {
    for (size_t i = 0; i < chunks_; ++i) ++times[at + rng.below(chunks_)];
  }
  return times;
}

void ChunkSums::total(std::span<const uint32_t> times, std::span<double> out) const {
  std::fill(out.begin(), out.end(), 0.0);
  for (size_t c = 0; c < chunks_; ++c) {
    if (times[c] == 0) continue;
    const auto weight = static_cast<double>(times[c]);
    const double* row = sums_.data() + c * columns_;
    for (size_t k = 0; k < columns_; ++k) out[k] += weight * row[k];
  }
}

std::vector<double> ChunkSums::total() const {
  const std::vector<uint32_t> once(chunks_, 1);
  std::vector<double> out(columns_);
  total(once, out);
  return out;
}

double Ratio::of(std::span<const double> totals) const {
  const double n = totals[denominator];
  if (n == 0) return std::numeric_limits<double>::quiet_NaN();
  const double ratio = totals[numerator] / n;
  return transform == nullptr ? ratio : transform(ratio);
}

std::vector<std::optional<Interval>> ratio_intervals(const ChunkSums& sums,
                                                     std::span<const Ratio> ratios,
                                                     const ChunkDraws& draws, ThreadPool* pool) {
  const auto n = static_cast<size_t>(draws.resamples());
  std::vector<double> drawn(n * ratios.size());  // [ratio, draw]
  draws.for_each(pool, [&](size_t draw, std::span<const uint32_t> times) {
    std::vector<double> totals(sums.columns());
    sums.total(times, totals);
    for (size_t k = 0; k < ratios.size(); ++k) drawn[k * n + draw] = ratios[k].of(totals);
  });
  std::vector<std::optional<Interval>> out(ratios.size());
  for (size_t k = 0; k < ratios.size(); ++k) {
    std::vector<double> known;
    for (size_t i = 0; i < n; ++i) {
      if (!std::isnan(drawn[k * n + i])) known.push_back(drawn[k * n + i]);
    }
    if (!known.empty()) out[k] = percentile_interval(known);
  }
  return out;
}

RankedValues rank(std::span<const std::vector<double>> values_of_chunks) {
  std::vector<std::pair<double, uint32_t>> all;
  RankedValues out;
  for (size_t c = 0; c < values_of_chunks.size(); ++c) {
    for (const double v : values_of_chunks[c]) all.emplace_back(v, static_cast<uint32_t>(c));
    out.counts.push_back(static_cast<uint32_t>(values_of_chunks[c].size()));
  }
  std::sort(all.begin(), all.end());
  for (const auto& [value, chunk] : all) {
    out.values.push_back(value);
    out.chunks.push_back(chunk);
  }
  return out;
}

void weighted_quantiles(const RankedValues& ranked, std::span<const uint32_t> times,
                        std::span<const double> wanted, std::span<double> out) {
  int64_t count = 0;
  for (size_t c = 0; c < times.size(); ++c) count += int64_t{times[c]} * ranked.counts[c];
  CHECK(count > 0);
  // Finds the value of each rank in turn, passing over whole blocks that end before it.
  constexpr size_t kBlock = 64;
  size_t at = 0;
  int64_t before = 0;  // how many values come before ranked.values[at]
  const auto value_of = [&](int64_t rank) {
    while (at + kBlock <= ranked.chunks.size()) {
      int64_t block = 0;
      for (size_t i = at; i < at + kBlock; ++i) block += times[ranked.chunks[i]];
      if (before + block > rank) break;
      before += block;
      at += kBlock;
    }
    while (before + times[ranked.chunks[at]] <= rank) before += times[ranked.chunks[at++]];
    return ranked.values[at];
  };
  for (size_t q = 0; q < wanted.size(); ++q) {
    const double rank = wanted[q] * static_cast<double>(count - 1);
    const double fraction = rank - std::floor(rank);
    const auto whole = static_cast<int64_t>(rank);
    out[q] = value_of(whole);
    if (fraction > 0) {
      // A quantile that follows may lie between the same two ranks.
      const size_t low_at = at;
      const int64_t low_before = before;
      out[q] += fraction * (value_of(whole + 1) - out[q]);
      at = low_at;
      before = low_before;
    }
  }
}

std::vector<Interval> quantile_intervals(const RankedValues& ranked, std::span<const double> wanted,
                                         const ChunkDraws& draws, ThreadPool* pool) {
  const auto n = static_cast<size_t>(draws.resamples());
  std::vector<std::vector<double>> drawn(wanted.size(), std::vector<double>(n));
  draws.for_each(pool, [&](size_t draw, std::span<const uint32_t> times) {
    std::vector<double> values(wanted.size());
    weighted_quantiles(ranked, times, wanted, values);
    for (size_t q = 0; q < wanted.size(); ++q) drawn[q][draw] = values[q];
  });
  std::vector<Interval> out;
  for (std::vector<double>& values : drawn) out.push_back(percentile_interval(values));
  return out;
}

Interval percentile_interval(std::vector<double>& draws) {
  std::sort(draws.begin(), draws.end());
  return {quantile(draws, 0.025), quantile(draws, 0.975)};
}

double quantile(std::span<const double> sorted, double p) {
  CHECK(!sorted.empty() && p >= 0 && p <= 1);
  const double rank = p * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  const double fraction = rank - std::floor(rank);
  if (fraction == 0) return sorted[low];
  return sorted[low] + fraction * (sorted[low + 1] - sorted[low]);
}

}  // namespace carat::audit
