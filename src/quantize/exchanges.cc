#include "quantize/exchanges.h"

#include <algorithm>
#include <cmath>

namespace carat::quantize {
namespace {

constexpr double kDoubt = 0.3;  // standard error of a difference of costs, as a share of it

struct Move {
  size_t item = 0, to = 0;
  double use = 0, gain = 0;
};

// The mean of what is above 0 of a normal variable.
double expected_gain(double mean, double sd) {
  if (!(sd > 0)) return std::max(mean, 0.0);
  const double z = mean / sd;
  return mean * 0.5 * std::erfc(-z / std::sqrt(2.0)) + sd * std::exp(-0.5 * z * z) * 0.3989422804;
}

}  // namespace

std::optional<std::vector<size_t>> Exchanges::next(std::span<const std::vector<Offer>> offers,
                                                   std::span<const size_t> picks, double room) {
  std::vector<Move> ups, downs;
  for (size_t i = 0; i < offers.size(); ++i) {
    const Offer& now = offers[i][picks[i]];
    const Offer *above = nullptr, *below = nullptr;
    for (const size_t c : lower_hull(offers[i])) {
      const Offer& o = offers[i][c];
      if (o.use > now.use && above == nullptr) above = &o;
      if (o.use < now.use) below = &o;
    }
    for (const Offer* o : {above, below}) {
      if (o == nullptr) continue;
      const Move move{i, static_cast<size_t>(o - offers[i].data()), o->use - now.use,
                      now.cost - o->cost};
      (o == above ? ups : downs).push_back(move);
    }
  }
  double best = 0;
  std::vector<std::pair<size_t, size_t>> found;
  const auto consider = [&](double gain, double sd, std::vector<std::pair<size_t, size_t>> moves) {
    const double expected = expected_gain(gain, sd);
    if (expected <= best) return;
    std::sort(moves.begin(), moves.end());
    if (proposed_.contains(moves)) return;
    best = expected;
    found = std::move(moves);
  };
  for (const Move& up : ups) {
    if (up.use <= room) {
      consider(up.gain, kDoubt * std::fabs(up.gain), {{up.item, up.to}});
      continue;
    }
    for (const Move& down : downs) {
      if (down.item == up.item || up.use + down.use > room) continue;
      consider(up.gain + down.gain, kDoubt * std::hypot(up.gain, down.gain),
               {{up.item, up.to}, {down.item, down.to}});
    }
  }
  if (found.empty()) return std::nullopt;
  proposed_.insert(found);
  std::vector<size_t> after(picks.begin(), picks.end());
  for (const auto& [item, to] : found) after[item] = to;
  return after;
}

}  // namespace carat::quantize
