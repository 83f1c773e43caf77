// What a search concludes from measurements that are made up: of models whose costs are known.
#include "quantize/search_steps.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace carat::quantize {
namespace {

using model::TensorKind;

constexpr int64_t kFixed = 1000;
constexpr size_t kSmall = 0, kLarge = 1;

// In types of 4.5 and 8.5 bits a weight.
MatrixChoices matrix(int64_t layer) {
  MatrixChoices m;
  m.plan.ref = {TensorKind::kQ, layer};
  m.plan.shape = {32, 256};
  m.types = {{DType::kQ4_0, 4608, 16, 0}, {DType::kQ8_0, 8704, 0.1, 0}};
  return m;
}

// A model whose mean KLD is a function of the picks; chunks differ by a tenth.
class SearchStepsTest : public testing::Test {
 protected:
  void make(size_t n, std::function<double(std::span<const Pick>)> kld) {
    choices_.clear();
    measured_.clear();
    for (size_t i = 0; i < n; ++i) choices_.push_back(matrix(static_cast<int64_t>(i)));
    MixMeter meter;
    meter.measure = [this, kld](std::span<const Pick> picks) {
      measured_.emplace_back(picks.begin(), picks.end());
      return klds(kld(picks));
    };
    meter.check = [kld](const Picks& picks) {
      return kld(std::vector<Pick>(picks.begin(), picks.end()));
    };
    steps_.emplace(choices_, n, kFixed, std::move(meter));
    steps_->measure_alone();
  }

  static Klds klds(double mean) {
    Klds k;
    for (int c = 0; c < 10; ++c) {
      k.counts.push_back(100);
      k.sums.push_back(mean * 100 * (c % 2 == 0 ? 1.1 : 0.9));
    }
    return k;
  }

  // Of a matrix in its types, relative to the smallest; nothing in the source's own.
  static double damage(const Pick& pick) {
    constexpr double kDamage[] = {1, 0.00625};
    return pick ? kDamage[*pick] : 0;
  }

  int64_t bytes(std::initializer_list<size_t> picks) const {
    return steps_->bytes_of(Picks(picks));
  }

  std::vector<MatrixChoices> choices_;
  std::optional<SearchSteps> steps_;
  std::vector<std::vector<Pick>> measured_;
};

TEST_F(SearchStepsTest, MatricesThatMatterMoreGetTheBits) {
  for (size_t dear = 0; dear < 4; ++dear) {
    make(4, [&](std::span<const Pick> picks) {
      double sum = 0;
      for (size_t m = 0; m < picks.size(); ++m) sum += (m == dear ? 1 : 0.01) * damage(picks[m]);
      return sum;
    });
    Picks wanted(4, kSmall);
    wanted[dear] = kLarge;
    EXPECT_EQ(steps_->for_size(steps_->bytes_of(wanted), 0, 0), wanted);
    ASSERT_EQ(steps_->steps().size(), 1u);
    EXPECT_NEAR(steps_->steps()[0].measured, 0.00625 + 0.03, 1e-9);
    EXPECT_NEAR(steps_->predict(wanted), 0.00625 + 0.03, 1e-9);
    EXPECT_EQ(steps_->passes(), static_cast<int64_t>(measured_.size()));
    EXPECT_EQ(steps_->smallest(), Picks(4, kSmall));
    EXPECT_EQ(steps_->largest(), Picks(4, kLarge));
    EXPECT_EQ(steps_->solve(steps_->bytes_of(steps_->smallest())), Picks(4, kSmall));
    EXPECT_FALSE(steps_->solve(steps_->bytes_of(steps_->smallest()) - 1).has_value());
  }
}

// Whether every matrix has a type, as in the midst of a mix.
bool is_mix(std::span<const Pick> picks) {
  for (const Pick& p : picks) {
    if (!p) return false;
  }
  return true;
}

TEST_F(SearchStepsTest, RoundsFindWhatMattersInTheMidstOfOthers) {
  // Alone the first matrix seems to cost twice what the second does; in a mix the second costs four
  // times what the first does.
  const auto kld = [](std::span<const Pick> picks) {
    const double first = damage(picks[0]), second = damage(picks[1]);
    return is_mix(picks) ? 0.25 * first + second : 2 * first + second;
  };
  make(2, kld);
  const int64_t size = bytes({kLarge, kSmall});
  EXPECT_EQ(steps_->for_size(size, 0, 0), (Picks{kLarge, kSmall}));
  make(2, kld);
  EXPECT_EQ(steps_->for_size(size, 1, 0), (Picks{kSmall, kLarge}));
  const std::vector<SearchStep> steps = steps_->steps();
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_TRUE(steps[1].taken);
  EXPECT_NEAR(steps[0].measured, 0.25 * 0.00625 + 1, 1e-9);
  EXPECT_NEAR(steps[1].measured, 0.25 + 0.00625, 1e-9);
}

TEST_F(SearchStepsTest, RoundsLeaveWhatMeasuresWorse) {
  // As above while one of them is changed, but not both.
  const Picks begin = {kLarge, kSmall};
  make(2, [&](std::span<const Pick> picks) {
    const double first = damage(picks[0]), second = damage(picks[1]);
    if (!is_mix(picks)) return 2 * first + second;
    const bool both = *picks[0] != begin[0] && *picks[1] != begin[1];
    return 0.25 * first + second + (both ? 3 : 0);
  });
  EXPECT_EQ(steps_->for_size(bytes({kLarge, kSmall}), 1, 0), begin);
  const std::vector<SearchStep>& steps = steps_->steps();
  ASSERT_GE(steps.size(), 2u);
  for (size_t i = 1; i < steps.size(); ++i) {
    EXPECT_FALSE(steps[i].taken) << steps[i].what;
    EXPECT_GT(steps[i].measured, steps[0].measured);
  }
}

TEST_F(SearchStepsTest, ExchangesAreTakenWhereTheyMeasureBetterAndOnlyThere) {
  // The two seem alike, the first a little dearer.
  for (const bool better : {true, false}) {
    make(2, [&](std::span<const Pick> picks) {
      const double first = damage(picks[0]), second = damage(picks[1]);
      if (!is_mix(picks)) return 1.05 * first + second;
      return better ? 0.5 * first + second : 1.05 * first + second;
    });
    const int64_t size = bytes({kLarge, kSmall});
    const Picks found = steps_->for_size(size, 0, 4);
    EXPECT_EQ(found, better ? (Picks{kSmall, kLarge}) : (Picks{kLarge, kSmall}));
    EXPECT_LE(steps_->bytes_of(found), size);
    ASSERT_EQ(steps_->steps().size(), 2u);
    EXPECT_NEAR(steps_->steps()[1].measured, better ? 0.5 + 0.00625 : 1.05 * 0.00625 + 1, 1e-9);
    // Alone, the solution, and an exchange.
    EXPECT_GE(measured_.size(), 4u + 2);
  }
}

TEST_F(SearchStepsTest, ExchangesNeedMoreThanOneAndAHalfStandardErrors) {
  // Means are better by an eighth of what chunks differ by.
  choices_ = {matrix(0), matrix(1)};
  MixMeter meter;
  int exchanges = 0;
  meter.measure = [&](std::span<const Pick> picks) {
    const bool after = is_mix(picks) && *picks[1] == kLarge;
    exchanges += after;
    Klds k = klds(is_mix(picks) ? 1 : 1.05 * damage(picks[0]) + damage(picks[1]));
    if (!after) return k;
    for (size_t c = 0; c < k.sums.size(); ++c) k.sums[c] += c % 2 == 0 ? -22.5 : 17.5;
    return k;
  };
  SearchSteps steps(choices_, 2, kFixed, meter);
  steps.measure_alone();
  const Picks begin = {kLarge, kSmall};
  EXPECT_EQ(steps.for_size(steps.bytes_of(begin), 0, 4), begin);
  EXPECT_GT(exchanges, 0);
}

TEST_F(SearchStepsTest, TheSmallestFileOfAKldIsFound) {
  const auto kld = [](std::span<const Pick> picks) {
    return 0.8 * (damage(picks[0]) + 0.1 * damage(picks[1]) + 0.01 * damage(picks[2]));
  };
  make(3, kld);
  // Just above what this mix has.
  const Picks wanted = {kLarge, kLarge, kSmall};
  const double aim = 0.8 * (0.00625 + 0.000625 + 0.01) * 1.001;
  EXPECT_EQ(steps_->for_kld(aim, 0), wanted);
  make(3, kld);
  EXPECT_THROW((void)steps_->for_kld(1e-9, 0), Error);
}

TEST_F(SearchStepsTest, TheLargestMixIsPredictedAsMeasured) {
  make(2, [](std::span<const Pick> picks) { return damage(picks[0]) + damage(picks[1]); });
  EXPECT_EQ(steps_->take_largest(), steps_->largest());
  EXPECT_NEAR(steps_->predict(steps_->largest()), 0.0125, 1e-12);
}

TEST_F(SearchStepsTest, WhatIsKeptIsNotMeasured) {
  choices_ = {matrix(0), matrix(1)};
  choices_[0].types = {{DType::kQ4_0, 4608, 0, 0}};
  MixMeter meter;
  size_t measured = 0;
  meter.measure = [&](std::span<const Pick> picks) {
    ++measured;
    EXPECT_TRUE(picks[1].has_value());
    return klds(damage(picks[1]));
  };
  SearchSteps steps(choices_, 2, kFixed, meter);
  steps.measure_alone();
  EXPECT_EQ(measured, 2u);  // nearest to 0 and to 4.5 bits is the same
  EXPECT_EQ(steps.for_size(steps.bytes_of({0, kLarge}), 0, 0), (Picks{0, kLarge}));
}

}  // namespace
}  // namespace carat::quantize
