#include "audit/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace carat::audit {
namespace {

double exponential(double x) { return std::exp(x); }
double root(double x) { return std::sqrt(x); }

// Sums over the positions of a chunk: every figure but the quantiles follows from them.
enum Column : size_t {
  kPositions,
  kKld,
  kNllDifference,
  kReferenceNll,
  kCandidateNll,
  kEntropy,
  kDeltaP,
  kDeltaPSquared,
  kSameTop,
  kTop5,
  kColumns
};

struct MeanFigure {
  Figure Summary::*figure;
  Ratio ratio;
  bool share = false;  // of positions
};

constexpr MeanFigure kMeanFigures[] = {
    {&Summary::mean_kld, {kKld, kPositions}},
    {&Summary::perplexity_ratio, {kNllDifference, kPositions, exponential}},
    {&Summary::reference_perplexity, {kReferenceNll, kPositions, exponential}},
    {&Summary::candidate_perplexity, {kCandidateNll, kPositions, exponential}},
    {&Summary::reference_entropy, {kEntropy, kPositions}},
    {&Summary::mean_delta_p, {kDeltaP, kPositions}},
    {&Summary::rms_delta_p, {kDeltaPSquared, kPositions, root}},
    {&Summary::top1_agreement, {kSameTop, kPositions}, true},
    {&Summary::top5_agreement, {kTop5, kPositions}, true},
};

struct QuantileFigure {
  Figure Summary::*figure;
  double p;
};

constexpr QuantileFigure kQuantileFigures[] = {
    {&Summary::median_kld, 0.5},
    {&Summary::p90_kld, 0.9},
    {&Summary::p99_kld, 0.99},
    {&Summary::p999_kld, 0.999},
};

constexpr FigureKey kFigureKeys[] = {
    {"mean_kld", &Summary::mean_kld},
    {"median_kld", &Summary::median_kld},
    {"p90_kld", &Summary::p90_kld},
    {"p99_kld", &Summary::p99_kld},
    {"p999_kld", &Summary::p999_kld},
    {"perplexity_ratio", &Summary::perplexity_ratio},
    {"reference_perplexity", &Summary::reference_perplexity},
    {"candidate_perplexity", &Summary::candidate_perplexity},
    {"reference_entropy", &Summary::reference_entropy},
    {"mean_delta_p", &Summary::mean_delta_p},
    {"rms_delta_p", &Summary::rms_delta_p},
    {"top1_agreement", &Summary::top1_agreement},
    {"top5_agreement", &Summary::top5_agreement},
};

// Positions, KLD and equal first choices of one bin stand side by side.
constexpr size_t kColumnsOfABin = 3;

struct BinPlace {
  Axis axis;
  size_t bin;
  size_t column;  // the first of three
};

// The columns of all axes' bins, after those of the figures.
class BinColumns {
 public:
  explicit BinColumns(size_t domains) {
    size_t column = kColumns;
    for (const Axis axis : kAxes) {
      first_.push_back(column);
      const size_t bins = axis == Axis::kDomain ? domains : bin_edges(axis).size();
      for (size_t i = 0; i < bins; ++i, column += kColumnsOfABin) {
        places_.push_back({axis, i, column});
      }
    }
    columns_ = column;
  }
  size_t column(Axis axis, size_t bin) const {
    return first_[static_cast<size_t>(axis)] + bin * kColumnsOfABin;
  }
  size_t columns() const { return columns_; }
  std::span<const BinPlace> places() const { return places_; }

 private:
  std::vector<size_t> first_;
  std::vector<BinPlace> places_;
  size_t columns_ = 0;
};

void add_to_bin(ChunkSums& sums, size_t chunk, size_t column, const Position& p) {
  sums.at(chunk, column) += 1;
  sums.at(chunk, column + 1) += p.kld;
  sums.at(chunk, column + 2) += p.same_top() ? 1 : 0;
}

void add(ChunkSums& sums, size_t chunk, const Position& p) {
  const double delta_p = p.delta_p();
  sums.at(chunk, kPositions) += 1;
  sums.at(chunk, kKld) += p.kld;
  sums.at(chunk, kNllDifference) += p.candidate_nll - p.reference_nll;
  sums.at(chunk, kReferenceNll) += p.reference_nll;
  sums.at(chunk, kCandidateNll) += p.candidate_nll;
  sums.at(chunk, kEntropy) += static_cast<double>(p.entropy);
  sums.at(chunk, kDeltaP) += delta_p;
  sums.at(chunk, kDeltaPSquared) += delta_p * delta_p;
  sums.at(chunk, kSameTop) += p.same_top() ? 1 : 0;
  sums.at(chunk, kTop5) += static_cast<double>(p.top5_overlap);
}

struct Sample {
  std::vector<std::span<const Position>> chunks;  // none of them empty
  std::vector<size_t> domains;                    // of each; empty: none
  size_t domain_count = 0;
};

Sample sample_of(std::span<const std::vector<Position>> chunks, std::span<const int32_t> domains) {
  CHECK(domains.empty() || domains.size() == chunks.size());
  Sample sample;
  for (size_t c = 0; c < chunks.size(); ++c) {
    if (chunks[c].empty()) continue;
    sample.chunks.push_back(chunks[c]);
    if (domains.empty()) continue;
    CHECK(domains[c] >= 0);
    sample.domains.push_back(static_cast<size_t>(domains[c]));
    sample.domain_count = std::max(sample.domain_count, sample.domains.back() + 1);
  }
  CHECK(!sample.chunks.empty());
  return sample;
}

ChunkSums sums_of(const Sample& sample, const BinColumns& bins) {
  ChunkSums sums(sample.chunks.size(), bins.columns());
  for (size_t c = 0; c < sample.chunks.size(); ++c) {
    for (const Position& p : sample.chunks[c]) {
      add(sums, c, p);
      for (const Axis axis : kAxes) {
        if (axis == Axis::kDomain) continue;
        add_to_bin(sums, c, bins.column(axis, bin_of(axis, p)), p);
      }
      if (!sample.domains.empty()) {
        add_to_bin(sums, c, bins.column(Axis::kDomain, sample.domains[c]), p);
      }
    }
  }
  return sums;
}

RankedValues ranked_kld(const Sample& sample) {
  std::vector<std::vector<double>> values;
  for (const auto& chunk : sample.chunks) {
    values.emplace_back();
    for (const Position& p : chunk) values.back().push_back(p.kld);
  }
  return rank(values);
}

Bin bin_at(const BinPlace& place, const ChunkSums& sums, std::span<const double> totals) {
  Bin bin;
  bin.from = static_cast<double>(place.bin);
  bin.to = bin.from + 1;
  if (place.axis != Axis::kDomain) {
    const std::span<const double> edges = bin_edges(place.axis);
    bin.from = edges[place.bin];
    bin.to = place.bin + 1 < edges.size() ? edges[place.bin + 1]
                                          : std::numeric_limits<double>::infinity();
  }
  const double n = totals[place.column];
  bin.tokens = static_cast<int64_t>(n);
  bin.flips = bin.tokens - static_cast<int64_t>(totals[place.column + 2]);
  for (size_t c = 0; c < sums.chunks(); ++c) bin.chunks += sums.at(c, place.column) > 0 ? 1 : 0;
  if (bin.tokens > 0) {
    bin.mean_kld.value = totals[place.column + 1] / n;
    bin.top1_agreement.value = totals[place.column + 2] / n;
  }
  return bin;
}

bool is_certain(const Figure& share) { return share.value <= 0 || share.value >= 1; }

// Of the figures, then of the bins' divergence and agreement.
std::vector<Ratio> all_ratios(const BinColumns& bins) {
  std::vector<Ratio> ratios;
  for (const MeanFigure& f : kMeanFigures) ratios.push_back(f.ratio);
  for (const BinPlace& place : bins.places()) {
    ratios.push_back({place.column + 1, place.column});
    ratios.push_back({place.column + 2, place.column});
  }
  return ratios;
}

void set_means(Summary& s, const ChunkSums& sums, const BinColumns& bins, const ChunkDraws& draws,
               ThreadPool* pool) {
  const std::vector<double> totals = sums.total();
  const std::vector<Ratio> ratios = all_ratios(bins);
  std::vector<std::optional<Interval>> intervals(ratios.size());
  if (sums.chunks() > 1) intervals = ratio_intervals(sums, ratios, draws, pool);
  size_t next = 0;
  for (const MeanFigure& f : kMeanFigures) {
    Figure& figure = s.*f.figure;
    figure = {f.ratio.of(totals), intervals[next++]};
    if (f.share && is_certain(figure)) figure.interval.reset();
  }
  for (const BinPlace& place : bins.places()) {
    Bin bin = bin_at(place, sums, totals);
    if (bin.chunks >= kFewestChunksOfABin) {
      bin.mean_kld.interval = intervals[next];
      if (!is_certain(bin.top1_agreement)) bin.top1_agreement.interval = intervals[next + 1];
    }
    next += 2;
    if (bin.tokens > 0) s.breakdown.of(place.axis).push_back(bin);
  }
}

void set_quantiles(Summary& s, const RankedValues& ranked, const ChunkDraws& draws,
                   ThreadPool* pool) {
  std::vector<double> wanted;
  for (const QuantileFigure& f : kQuantileFigures) {
    (s.*f.figure).value = quantile(ranked.values, f.p);
    const double beyond = static_cast<double>(ranked.values.size()) * (1 - f.p);
    // The product is rounded: 10,000 positions have ten beyond 99.9 %.
    if (std::round(beyond * 1e6) >= kFewestBeyond * 1e6) wanted.push_back(f.p);
  }
  if (ranked.counts.size() < 2 || wanted.empty()) return;
  const std::vector<Interval> intervals = quantile_intervals(ranked, wanted, draws, pool);
  for (size_t q = 0; q < wanted.size(); ++q) {
    (s.*kQuantileFigures[q].figure).interval = intervals[q];
  }
}

}  // namespace

std::span<const FigureKey> figure_keys() { return kFigureKeys; }

Summary summarize(std::span<const std::vector<Position>> chunks, const SummaryOptions& options,
                  std::span<const int32_t> domains, ThreadPool* pool) {
  const Sample sample = sample_of(chunks, domains);
  const BinColumns bins(sample.domain_count);
  const ChunkSums sums = sums_of(sample, bins);
  const RankedValues ranked = ranked_kld(sample);
  const ChunkDraws draws(sample.chunks.size(), options);

  Summary s;
  s.tokens = static_cast<int64_t>(ranked.values.size());
  s.chunks = static_cast<int64_t>(sample.chunks.size());
  s.max_kld = ranked.values.back();
  set_means(s, sums, bins, draws, pool);
  set_quantiles(s, ranked, draws, pool);
  Histogram histogram;
  for (const double kld : ranked.values) histogram.add(kld);
  s.kld_histogram = histogram.bins();
  return s;
}

}  // namespace carat::audit
