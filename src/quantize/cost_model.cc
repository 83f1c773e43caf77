#include "quantize/cost_model.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace carat::quantize {
namespace {

// How far, relatively, an effect in the midst of others is expected to be from that alone.
constexpr double kSpread = 0.5;
constexpr double kMostCorrection = 4;

bool is_float_type(DType type) { return info(type).block_elements == 1; }

}  // namespace

CostModel::CostModel(std::span<const MatrixChoices> choices,
                     std::vector<std::vector<size_t>> groups)
    : choices_(choices),
      groups_(std::move(groups)),
      measured_(choices.size()),
      correction_(choices.size(), 1.0) {}

void CostModel::add_alone(size_t group, std::span<const Pick> picks, double kld) {
  double errors = 0;
  const auto error = [&](size_t m) {
    const Pick pick = picks[m];
    return pick ? choices_[m].types[*pick].error : 0;
  };
  for (const size_t m : groups_[group]) errors += error(m);
  for (const size_t m : groups_[group]) {
    if (error(m) <= 0) continue;
    auto& points = measured_[m];
    // No divergence is below 0, and nothing that rounding makes of one.
    points.emplace_back(error(m), std::max(kld, 0.0) * error(m) / errors);
    std::sort(points.begin(), points.end());
  }
}

double CostModel::alone(size_t matrix, size_t choice) const {
  const TypeChoice& t = choices_[matrix].types[choice];
  const auto& points = measured_[matrix];
  if (points.empty() || t.error <= 0) return 0;
  const auto& coarse = points.back();
  const double slope = coarse.second / coarse.first;
  if (is_float_type(t.dtype) || t.error >= coarse.first) return slope * t.error;
  const auto above = std::lower_bound(points.begin(), points.end(), std::pair(t.error, 0.0));
  if (above == points.begin()) {
    if (points.size() < 2) return slope * t.error;
    // The line through the two finest, not below 0.
    const auto &a = points[0], &b = points[1];
    const double k = (b.second - a.second) / std::max(b.first - a.first, 1e-300);
    return std::clamp(a.second - k * (a.first - t.error), 0.0, a.second);
  }
  const auto &a = *(above - 1), &b = *above;
  if (b.first <= a.first) return b.second;
  const double share = (t.error - a.first) / (b.first - a.first);
  return std::max(0.0, a.second + (b.second - a.second) * share);
}

double CostModel::cost(size_t matrix, size_t choice) const {
  return scale_ * correction_[matrix] * alone(matrix, choice);
}

double CostModel::predict(std::span<const size_t> picks) const {
  double sum = 0;
  for (size_t m = 0; m < picks.size(); ++m) sum += cost(m, picks[m]);
  return sum;
}

void CostModel::add_mix(std::span<const size_t> picks, double kld) {
  const double predicted = predict(picks);
  if (predicted > 0 && kld > 0) scale_ *= kld / predicted;
}

void CostModel::add_changes(std::span<const Change> changes) {
  // Of each group the factor between what was measured and what was predicted, drawn to 1 as by a
  // prior of that spread.
  std::map<size_t, std::pair<double, double>> sums;
  for (const Change& c : changes) {
    const double predicted = predict(c.before) - predict(c.after);
    const double variance = c.error * c.error;
    if (!(variance > 0) || !std::isfinite(variance)) continue;
    auto& [products, squares] = sums[c.group];
    products += predicted * c.gain / variance;
    squares += predicted * predicted / variance;
  }
  constexpr double kPrior = 1 / (kSpread * kSpread);
  for (const auto& [group, s] : sums) {
    const double factor =
        std::clamp((kPrior + s.first) / (kPrior + s.second), 1 / kMostCorrection, kMostCorrection);
    for (const size_t m : groups_[group]) correction_[m] *= factor;
  }
}

std::vector<std::vector<Offer>> CostModel::offers() const {
  std::vector<std::vector<Offer>> all;
  for (size_t m = 0; m < choices_.size(); ++m) {
    std::vector<Offer>& offers = all.emplace_back();
    for (size_t c = 0; c < choices_[m].types.size(); ++c) {
      offers.push_back({static_cast<double>(choices_[m].types[c].bytes), cost(m, c)});
    }
  }
  return all;
}

std::vector<std::vector<size_t>> make_groups(std::span<const MatrixChoices> choices, size_t most) {
  for (int64_t layers = 1;; ++layers) {
    std::map<std::pair<model::TensorKind, int64_t>, std::vector<size_t>> found;
    for (size_t m = 0; m < choices.size(); ++m) {
      const model::TensorRef ref = choices[m].plan.ref;
      found[{ref.kind, ref.layer < 0 ? -1 : ref.layer / layers}].push_back(m);
    }
    std::vector<std::vector<size_t>> groups;
    int64_t last = 0;
    for (auto& [key, members] : found) {
      for (const size_t m : members) last = std::max(last, choices[m].plan.ref.layer);
      groups.push_back(std::move(members));
    }
    if (groups.size() <= most || layers > last) return groups;
  }
}

}  // namespace carat::quantize
