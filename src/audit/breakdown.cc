#include "audit/breakdown.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace carat::audit {
namespace {

constexpr double kMarginEdges[] = {0, 0.1, 0.5};
constexpr double kEntropyEdges[] = {0, 0.1, 0.5, 1, 2, 4};

constexpr auto kPositionEdges = [] {
  std::array<double, 31> edges{};
  for (size_t i = 0; i < edges.size(); ++i) edges[i] = static_cast<double>(int64_t{1} << i);
  return edges;
}();

constexpr int kBinsOfADecade = 4;
constexpr int kFirstDecade = -8;
constexpr size_t kMostBins = 100;  // to 1e16, which no divergence of finite float logits reaches

double histogram_edge(size_t bin) {
  return std::pow(10.0, kFirstDecade + static_cast<double>(bin) / kBinsOfADecade);
}

}  // namespace

std::vector<Bin>& Breakdown::of(Axis axis) {
  switch (axis) {
    case Axis::kMargin:
      return by_margin;
    case Axis::kEntropy:
      return by_entropy;
    case Axis::kPosition:
      return by_position;
    case Axis::kDomain:
      break;
  }
  return by_domain;
}

std::span<const double> bin_edges(Axis axis) {
  CHECK(axis != Axis::kDomain);
  if (axis == Axis::kMargin) return kMarginEdges;
  if (axis == Axis::kEntropy) return kEntropyEdges;
  return kPositionEdges;
}

size_t bin_of(Axis axis, const Position& position) {
  const std::span<const double> edges = bin_edges(axis);
  const double x = axis == Axis::kMargin    ? position.margin()
                   : axis == Axis::kEntropy ? position.entropy
                                            : position.index;
  const auto above = std::upper_bound(edges.begin(), edges.end(), x);
  return static_cast<size_t>(std::max<std::ptrdiff_t>(above - edges.begin() - 1, 0));
}

void Histogram::add(double kld) {
  const double steps = kld > 0 ? (std::log10(kld) - kFirstDecade) * kBinsOfADecade : -1;
  size_t bin = static_cast<size_t>(std::clamp(std::floor(steps) + 1, 0.0, double{kMostBins}));
  // The logarithm may be rounded across an edge.
  if (bin > 0 && kld < histogram_edge(bin - 1)) --bin;
  if (bin < kMostBins && kld >= histogram_edge(bin)) ++bin;
  if (counts_.size() <= bin) counts_.resize(bin + 1);
  ++counts_[bin];
}

std::vector<HistogramBin> Histogram::bins() const {
  std::vector<HistogramBin> out;
  for (size_t i = 0; i < counts_.size(); ++i) {
    out.push_back({i == 0 ? 0 : histogram_edge(i - 1), histogram_edge(i), counts_[i]});
  }
  return out;
}

}  // namespace carat::audit
