#include "quantize/lagrange.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace carat::quantize {
namespace {

constexpr int kMostExchanges = 10'000;

struct Step {
  size_t item = 0, to = 0;  // an index of the item's offers
  double use = 0, cost = 0;
  double worth() const { return -cost / use; }
};

// Another choice of one item.
struct Move {
  size_t item = 0, to = 0;
  double use = 0, cost = 0;  // beside the present one
};

class Allocator {
 public:
  Allocator(std::span<const std::vector<Offer>> items, double limit)
      : items_(items), limit_(limit) {}

  std::optional<Allocation> run() {
    for (size_t i = 0; i < items_.size(); ++i) hulls_.push_back(lower_hull(items_[i]));
    for (const auto& hull : hulls_) result_.picks.push_back(hull.front());
    add_up();
    if (result_.use > limit_) return std::nullopt;
    climb();
    result_.bound = bound();
    for (int i = 0; i < kMostExchanges && exchange(); ++i) add_up();
    return result_;
  }

 private:
  const Offer& offer(size_t item, size_t choice) const { return items_[item][choice]; }

  void add_up() {
    result_.use = result_.cost = 0;
    for (size_t i = 0; i < items_.size(); ++i) {
      result_.use += offer(i, result_.picks[i]).use;
      result_.cost += offer(i, result_.picks[i]).cost;
    }
  }

  // Takes the hulls' steps, those of most worth first, as far as they fit.
  void climb() {
    std::vector<Step> steps;
    for (size_t i = 0; i < items_.size(); ++i) {
      for (size_t k = 1; k < hulls_[i].size(); ++k) {
        const Offer &from = offer(i, hulls_[i][k - 1]), &to = offer(i, hulls_[i][k]);
        steps.push_back({i, hulls_[i][k], to.use - from.use, to.cost - from.cost});
      }
    }
    std::stable_sort(steps.begin(), steps.end(),
                     [](const Step& a, const Step& b) { return a.worth() > b.worth(); });
    std::vector<bool> ended(items_.size());
    for (const Step& s : steps) {
      if (ended[s.item]) continue;
      if (result_.use + s.use > limit_) {
        if (result_.price == 0) result_.price = s.worth();
        ended[s.item] = true;
        continue;
      }
      result_.picks[s.item] = s.to;
      result_.use += s.use;
    }
    add_up();
  }

  double bound() const {
    double sum = -result_.price * limit_;
    for (const std::vector<Offer>& offers : items_) {
      double least = std::numeric_limits<double>::infinity();
      for (const Offer& o : offers) least = std::min(least, o.cost + result_.price * o.use);
      sum += least;
    }
    return sum;
  }

  // Makes the best change of one item, or of two that keeps the limit; false if none is left.
  bool exchange() {
    std::vector<Move> moves;
    for (size_t i = 0; i < items_.size(); ++i) {
      const Offer& now = offer(i, result_.picks[i]);
      for (size_t c = 0; c < items_[i].size(); ++c) {
        if (c == result_.picks[i]) continue;
        moves.push_back({i, c, offer(i, c).use - now.use, offer(i, c).cost - now.cost});
      }
    }
    std::stable_sort(moves.begin(), moves.end(),
                     [](const Move& a, const Move& b) { return a.use < b.use; });
    // Of the first n + 1 moves, the cheapest, and the cheapest of another item.
    std::vector<std::pair<size_t, size_t>> best(moves.size());
    for (size_t n = 0; n < moves.size(); ++n) {
      auto [first, second] = n == 0 ? std::pair(n, n) : best[n - 1];
      if (moves[n].cost < moves[first].cost) {
        if (moves[n].item != moves[first].item) second = first;
        first = n;
      } else if (moves[n].item != moves[first].item &&
                 (moves[second].item == moves[first].item || moves[n].cost < moves[second].cost)) {
        second = n;
      }
      best[n] = {first, second};
    }
    const double room = limit_ - result_.use;
    double gain = 1e-12 * std::fabs(result_.cost);
    const Move *one = nullptr, *two = nullptr;
    const auto fitting = [&](double use) {
      return static_cast<size_t>(
          std::upper_bound(moves.begin(), moves.end(), use,
                           [](double u, const Move& m) { return u < m.use; }) -
          moves.begin());
    };
    if (const size_t n = fitting(room); n > 0 && -moves[best[n - 1].first].cost > gain) {
      one = &moves[best[n - 1].first];
      gain = -one->cost;
    }
    for (const Move& m : moves) {
      const size_t n = fitting(room - m.use);
      if (n == 0) continue;
      const Move* other = &moves[best[n - 1].first];
      if (other->item == m.item) other = &moves[best[n - 1].second];
      if (other->item == m.item || -(m.cost + other->cost) <= gain) continue;
      gain = -(m.cost + other->cost);
      one = &m;
      two = other;
    }
    if (one == nullptr) return false;
    result_.picks[one->item] = one->to;
    if (two != nullptr) result_.picks[two->item] = two->to;
    return true;
  }

  std::span<const std::vector<Offer>> items_;
  double limit_;
  std::vector<std::vector<size_t>> hulls_;
  Allocation result_;
};

}  // namespace

std::vector<size_t> lower_hull(std::span<const Offer> offers) {
  CHECK(!offers.empty());
  std::vector<size_t> order(offers.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return offers[a].use != offers[b].use ? offers[a].use < offers[b].use
                                          : offers[a].cost < offers[b].cost;
  });
  std::vector<size_t> hull;
  for (const size_t i : order) {
    if (!hull.empty() && offers[i].cost >= offers[hull.back()].cost) continue;
    while (hull.size() >= 2) {
      const Offer &a = offers[hull[hull.size() - 2]], &b = offers[hull.back()], &c = offers[i];
      // b stays if it lies below the line from a to c.
      if ((b.cost - a.cost) * (c.use - a.use) < (c.cost - a.cost) * (b.use - a.use)) break;
      hull.pop_back();
    }
    hull.push_back(i);
  }
  return hull;
}

std::optional<Allocation> allocate(std::span<const std::vector<Offer>> items, double limit) {
  return Allocator(items, limit).run();
}

}  // namespace carat::quantize
