#include "quantize/exchanges.h"

#include <gtest/gtest.h>

namespace carat::quantize {
namespace {

TEST(Exchanges, ProposesWhatFitsOnceAndTheBestFirst) {
  const std::vector<std::vector<Offer>> offers = {
      {{1, 9}, {2, 3}, {4, 1}}, {{1, 5}, {3, 4.9}}, {{1, 1}, {2, 0.5}}};
  const std::vector<size_t> picks = {0, 1, 0};
  Exchanges exchanges;
  // Without room, the first matrix up for the second down.
  EXPECT_EQ(exchanges.next(offers, picks, 0), (std::vector<size_t>{1, 0, 0}));
  // Then the third.
  EXPECT_EQ(exchanges.next(offers, picks, 0), (std::vector<size_t>{0, 0, 1}));
  EXPECT_FALSE(exchanges.next(offers, picks, 0).has_value());
  // With room it goes up alone.
  EXPECT_EQ(exchanges.next(offers, picks, 1), (std::vector<size_t>{1, 1, 0}));
}

TEST(Exchanges, MayLoseALittleByPrediction) {
  const std::vector<std::vector<Offer>> offers = {{{1, 2}, {2, 1}}, {{1, 2.1}, {2, 1}}};
  Exchanges exchanges;
  // Up gains 1, down loses 1.1: worth a try.
  EXPECT_EQ(exchanges.next(offers, std::vector<size_t>{0, 1}, 0), (std::vector<size_t>{1, 0}));
}

}  // namespace
}  // namespace carat::quantize
