#include "audit/worst_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace carat::audit {
namespace {

Position at(double kld, int32_t index, int32_t next) {
  Position p;
  p.kld = kld;
  p.index = index;
  p.next = next;
  p.reference_nll = std::log(2.0);
  p.candidate_nll = std::log(8.0);
  p.reference_top = {{{next, 0.5f}, {1, 0.25f}, {-1, 0}}};
  p.candidate_top = {{{1, 0.75f}, {next, 0.125f}, {-1, 0}}};
  return p;
}

TEST(FindWorst, AgreesWithSortingEverything) {
  Rng rng(9);
  std::vector<std::vector<Position>> chunks(30);
  std::vector<std::pair<double, int>> all;  // less the divergence, in the order of the text
  int order = 0;
  for (auto& chunk : chunks) {
    for (int i = 1; i < 40; ++i) {
      const double kld = std::floor(200 * rng.uniform());  // with ties, and zeros
      chunk.push_back(at(kld, i, i));
      if (kld > 0) all.emplace_back(-kld, order);
      ++order;
    }
  }
  std::sort(all.begin(), all.end());
  for (const size_t most : {size_t{0}, size_t{1}, size_t{20}, size_t{5000}}) {
    const auto worst = find_worst(chunks, most);
    ASSERT_EQ(worst.size(), std::min(most, all.size()));
    for (size_t i = 0; i < worst.size(); ++i) {
      EXPECT_EQ(worst[i].kld, -all[i].first);
      EXPECT_EQ(worst[i].chunk * 39 + worst[i].index - 1, all[i].second);
    }
  }
}

TEST(FindWorst, EqualModelsHaveNone) {
  const std::vector<std::vector<Position>> chunks = {{at(0, 1, 2), at(0, 2, 3)}};
  EXPECT_TRUE(find_worst(chunks).empty());
}

TEST(Describe, QuotesTheTextAround) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 60; ++i) tokens.push_back(100 + i);
  std::vector<WorstToken> worst;
  for (const int32_t index : {50, 59, 1}) {
    const std::vector<std::vector<Position>> chunk = {{at(3, index, 100 + index)}};
    worst.push_back(find_worst(chunk)[0]);
  }
  describe(
      worst, [&](int64_t) { return std::span<const int32_t>(tokens); },
      [](std::span<const int32_t> ids) {
        std::string text;
        for (const int32_t id : ids) text += "<" + std::to_string(id) + ">";
        return text;
      });
  EXPECT_EQ(worst[0].before.substr(0, 10), "<118><119>");
  EXPECT_EQ(worst[0].before.substr(worst[0].before.size() - 5), "<149>");
  EXPECT_EQ(worst[0].next_text, "<150>");
  EXPECT_EQ(worst[0].after, "<151><152><153><154><155><156><157><158>");
  EXPECT_EQ(worst[1].after, "");
  EXPECT_EQ(worst[2].before, "<100>");
  ASSERT_EQ(worst[0].reference_top.size(), 2u);
  EXPECT_EQ(worst[0].reference_top[0].text, "<150>");
  EXPECT_EQ(worst[0].candidate_top[0].text, "<1>");
  EXPECT_EQ(worst[0].candidate_top[0].probability, 0.75);
  EXPECT_NEAR(worst[0].reference_probability, 0.5, 1e-15);
  EXPECT_NEAR(worst[0].candidate_probability, 0.125, 1e-15);
}

}  // namespace
}  // namespace carat::audit
