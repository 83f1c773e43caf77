#include "audit/differences.h"

#include <cmath>
#include <utility>

#include "base/error.h"

namespace carat::audit {
namespace {

// Columns of the sums: the positions, then three of each candidate.
enum Column : size_t { kKld, kNll, kSameTop, kColumns };
constexpr size_t kPositions = 0;
constexpr size_t column(size_t candidate, Column c) { return 1 + candidate * kColumns + c; }

using Candidates = std::span<const std::span<const std::vector<Position>>>;

ChunkSums sums_of(Candidates candidates) {
  const auto first = candidates.front();
  std::vector<size_t> chunks;
  for (size_t c = 0; c < first.size(); ++c) {
    if (!first[c].empty()) chunks.push_back(c);
  }
  CHECK(!chunks.empty());
  ChunkSums sums(chunks.size(), column(candidates.size(), kKld));
  for (size_t k = 0; k < candidates.size(); ++k) {
    CHECK(candidates[k].size() == first.size());
    for (size_t i = 0; i < chunks.size(); ++i) {
      const std::vector<Position>& positions = candidates[k][chunks[i]];
      CHECK(positions.size() == first[chunks[i]].size());
      sums.at(i, kPositions) = static_cast<double>(positions.size());
      for (const Position& p : positions) {
        sums.at(i, column(k, kKld)) += p.kld;
        sums.at(i, column(k, kNll)) += p.candidate_nll;
        sums.at(i, column(k, kSameTop)) += p.same_top() ? 1 : 0;
      }
    }
  }
  return sums;
}

double exponential(double x) { return std::exp(x); }

// All of a draw's totals, draw after draw.
class Drawn {
 public:
  Drawn(const ChunkSums& sums, const SummaryOptions& options, ThreadPool* pool)
      : columns_(sums.columns()), totals_(static_cast<size_t>(options.resamples) * columns_) {
    ChunkDraws(sums.chunks(), options)
        .for_each(pool, [&](size_t draw, std::span<const uint32_t> times) {
          sums.total(times, std::span(totals_).subspan(draw * columns_, columns_));
        });
  }

  // Of what `f` makes of a draw's totals; nothing if one of them is not finite.
  template <class F>
  std::optional<Interval> interval(F f) const {
    std::vector<double> values;
    for (size_t at = 0; at < totals_.size(); at += columns_) {
      values.push_back(f(std::span(totals_).subspan(at, columns_)));
      if (!std::isfinite(values.back())) return std::nullopt;
    }
    return percentile_interval(values);
  }

 private:
  size_t columns_;
  std::vector<double> totals_;
};

// The figures of one pair.
class Pair {
 public:
  Pair(const ChunkSums& sums, const Drawn* drawn, size_t baseline, size_t candidate)
      : sums_(sums), drawn_(drawn), baseline_(baseline), candidate_(candidate) {}

  Difference find(std::span<const double> totals) const {
    Difference d{.baseline = baseline_, .candidate = candidate_};
    d.mean_kld = figure(totals, [this](auto t) { return mean_difference(t, kKld); });
    d.top1_agreement = figure(totals, [this](auto t) { return mean_difference(t, kSameTop); });
    if (flips_alike()) d.top1_agreement.interval.reset();
    d.perplexity_ratio = power(figure(totals, [this](auto t) { return mean_difference(t, kNll); }));
    if (totals[column(baseline_, kKld)] > 0 && totals[column(candidate_, kKld)] > 0) {
      // In logarithms: so percentiles turn round with the order of the two.
      d.kld_ratio = power(figure(totals, [this](std::span<const double> t) {
        return std::log(t[column(candidate_, kKld)] / t[column(baseline_, kKld)]);
      }));
    }
    return d;
  }

 private:
  double mean_difference(std::span<const double> totals, Column c) const {
    return (totals[column(candidate_, c)] - totals[column(baseline_, c)]) / totals[kPositions];
  }

  template <class F>
  Figure figure(std::span<const double> totals, F f) const {
    return {f(totals), drawn_ == nullptr ? std::nullopt : drawn_->interval(f)};
  }

  static Figure power(const Figure& log) {
    Figure f{.value = exponential(log.value), .interval = log.interval};
    if (f.interval) f.interval = {std::exp(log.interval->low), std::exp(log.interval->high)};
    return f;
  }

  bool flips_alike() const {
    for (size_t c = 0; c < sums_.chunks(); ++c) {
      if (sums_.at(c, column(baseline_, kSameTop)) != sums_.at(c, column(candidate_, kSameTop))) {
        return false;
      }
    }
    return true;
  }

  const ChunkSums& sums_;
  const Drawn* drawn_;  // null: no intervals
  size_t baseline_, candidate_;
};

}  // namespace

std::optional<bool> Difference::apart() const { return excludes_zero(mean_kld); }

Difference Difference::reversed() const {
  Difference d = *this;
  std::swap(d.baseline, d.candidate);
  d.mean_kld = negated(mean_kld);
  if (kld_ratio) d.kld_ratio = inverted(*kld_ratio);
  d.top1_agreement = negated(top1_agreement);
  d.perplexity_ratio = inverted(perplexity_ratio);
  return d;
}

std::vector<Difference> paired_differences(Candidates candidates, const SummaryOptions& options,
                                           ThreadPool* pool) {
  if (candidates.size() < 2) return {};
  const ChunkSums sums = sums_of(candidates);
  std::optional<Drawn> drawn;
  if (sums.chunks() > 1) drawn.emplace(sums, options, pool);
  const std::vector<double> totals = sums.total();
  const auto is_finite = [&](size_t k) { return std::isfinite(totals[column(k, kKld)]); };
  std::vector<Difference> found;
  for (size_t a = 0; a < candidates.size(); ++a) {
    for (size_t b = a + 1; b < candidates.size(); ++b) {
      if (!is_finite(a) || !is_finite(b)) continue;
      found.push_back(Pair(sums, drawn ? &*drawn : nullptr, a, b).find(totals));
    }
  }
  return found;
}

}  // namespace carat::audit
