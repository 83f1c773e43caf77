#include "quantize/lagrange.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/rng.h"

namespace carat::quantize {
namespace {

using Items = std::vector<std::vector<Offer>>;

// Tries everything.
double least_cost(const Items& items, double limit) {
  std::vector<size_t> picks(items.size());
  double best = std::numeric_limits<double>::infinity();
  for (bool more = true; more;) {
    double use = 0, cost = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      use += items[i][picks[i]].use;
      cost += items[i][picks[i]].cost;
    }
    if (use <= limit) best = std::min(best, cost);
    more = false;
    for (size_t i = 0; i < items.size(); ++i) {
      if (++picks[i] < items[i].size()) {
        more = true;
        break;
      }
      picks[i] = 0;
    }
  }
  return best;
}

Items random_items(Rng& rng, size_t n, size_t choices) {
  Items items(n);
  for (auto& offers : items) {
    const double size = 1 + static_cast<double>(rng.next() % 9), harm = 0.1 + rng.uniform();
    for (size_t c = 0; c < choices; ++c) {
      const double bits = 2 + static_cast<double>(rng.next() % 14);
      // About 4^-bits, with noise: some offers are worse than smaller ones.
      offers.push_back({size * bits, harm * (0.5 + rng.uniform()) / (bits * bits)});
    }
  }
  return items;
}

TEST(Lagrange, HullIsConvexAndHasTheEnds) {
  const std::vector<Offer> offers = {{4, 5}, {1, 9}, {2, 8},   {3, 3},
                                     {8, 1}, {8, 2}, {6, 2.9}, {9, 1}};
  EXPECT_EQ(lower_hull(offers), (std::vector<size_t>{1, 3, 4}));
  EXPECT_EQ(lower_hull(std::vector<Offer>{{1, 1}, {1, 0}}), (std::vector<size_t>{1}));
}

TEST(Lagrange, NearTheBestOfAllPicks) {
  Rng rng(7);
  int exact = 0;
  constexpr int kRuns = 300;
  for (int run = 0; run < kRuns; ++run) {
    const Items items = random_items(rng, 2 + rng.next() % 4, 1 + rng.next() % 5);
    double least = 0, most = 0, largest_step = 0;
    for (const auto& offers : items) {
      const auto hull = lower_hull(offers);
      least += offers[hull.front()].use;
      most += offers[hull.back()].use;
      for (size_t k = 1; k < hull.size(); ++k) {
        largest_step = std::max(largest_step, offers[hull[k - 1]].cost - offers[hull[k]].cost);
      }
    }
    const double limit = least + rng.uniform() * (most - least);
    const auto found = allocate(items, limit);
    ASSERT_TRUE(found.has_value());
    double use = 0, cost = 0;
    for (size_t i = 0; i < items.size(); ++i) {
      use += items[i][found->picks[i]].use;
      cost += items[i][found->picks[i]].cost;
    }
    EXPECT_DOUBLE_EQ(use, found->use);
    EXPECT_DOUBLE_EQ(cost, found->cost);
    EXPECT_LE(use, limit);
    const double best = least_cost(items, limit);
    EXPECT_GE(cost, best - 1e-12);
    EXPECT_LE(cost, best + largest_step);
    EXPECT_LE(found->bound, best + 1e-12);
    exact += cost <= best + 1e-12;
  }
  EXPECT_GE(exact, kRuns * 9 / 10);
}

TEST(Lagrange, BestOfAllWhereTheHullsStepsFillTheLimit) {
  Rng rng(11);
  for (int run = 0; run < 100; ++run) {
    const Items items = random_items(rng, 4, 4);
    // What a price gives uses just so much.
    const double price = 0.0002 + 0.01 * rng.uniform();
    double limit = 0;
    for (const auto& offers : items) {
      const auto at = std::min_element(offers.begin(), offers.end(), [&](auto& a, auto& b) {
        return a.cost + price * a.use < b.cost + price * b.use;
      });
      limit += at->use;
    }
    const auto found = allocate(items, limit);
    ASSERT_TRUE(found.has_value());
    EXPECT_NEAR(found->cost, least_cost(items, limit), 1e-12);
  }
}

TEST(Lagrange, FillsByExchange) {
  // The hull's steps do not fit, a choice beside the hull and one of two items do.
  const Items items = {{{1, 10}, {4, 9}, {10, 0}}, {{1, 8}, {9, 0}}};
  EXPECT_EQ(allocate(items, 5)->picks, (std::vector<size_t>{1, 0}));
  EXPECT_EQ(allocate(items, 10)->picks, (std::vector<size_t>{0, 1}));
  EXPECT_EQ(allocate(items, 11)->picks, (std::vector<size_t>{2, 0}));
}

TEST(Lagrange, ImpossibleAndUnlimited) {
  const Items items = {{{3, 1}, {2, 2}}, {{5, 0}}};
  EXPECT_FALSE(allocate(items, 6.9).has_value());
  EXPECT_EQ(allocate(items, 7)->cost, 2);
  EXPECT_EQ(allocate(items, 1e9)->cost, 1);
  EXPECT_EQ(allocate(items, 1e9)->price, 0);
}

}  // namespace
}  // namespace carat::quantize
