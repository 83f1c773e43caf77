#include "audit/page/differences.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "audit/page/page.h"
#include "audit/page/svg.h"
#include "base/error.h"

namespace carat::audit {
namespace {

Json candidate(const std::string& path, double kld) {
  Json j{{"candidate", path}, {"reference", "teacher"}, {"tokens", 5000}, {"chunks", 20}};
  j["mean_kld"] = kld;
  j["mean_kld_interval"] = Json::array({kld * 0.9, kld * 1.1});
  return j;
}

Json pair(const std::string& baseline, const std::string& of, double by, double half) {
  Json j{{"reference", "teacher"}, {"baseline", baseline}, {"candidate", of}};
  j["mean_kld_difference"] = by;
  j["mean_kld_difference_interval"] = Json::array({by - half, by + half});
  j["mean_kld_ratio"] = 1.25;
  j["mean_kld_ratio_interval"] = Json::array({1.1, 1.6});
  j["top1_agreement_difference"] = -0.0125;
  j["perplexity_ratio"] = 1.02;
  return j;
}

Json audit_of(const std::vector<Json>& candidates, const std::vector<Json>& pairs) {
  Json j{{"schema", "carat-audit-1"}, {"reference", "teacher"}, {"context", 512}};
  j["candidates"] = candidates;
  j["differences"] = pairs;
  return j;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// What the page says of differences; empty if nothing.
std::string part_of(const std::string& page) {
  const size_t at = page.find("<h3>Which differences are certain");
  if (at == std::string::npos) return {};
  return page.substr(at, page.find("</figure>", at) - at);
}

TEST(PageDifferences, StandBesideTheClosest) {
  const std::string page =
      audit_page(audit_of({candidate("b", 0.012), candidate("a", 0.01), candidate("c", 0.0101)},
                          {pair("b", "a", -0.002, 0.0005), pair("b", "c", -0.0019, 0.0005),
                           pair("a", "c", 0.0001, 0.0002)}));
  const std::string part = part_of(page);
  EXPECT_TRUE(has(part, "<bdi>a</bdi> each candidate is"));
  // b less a, turned round from a less b.
  EXPECT_TRUE(has(part, "<b>0.00200</b><small>0.00150 \u2013 0.00250</small>"));
  EXPECT_TRUE(has(part, "0.800\u00d7<small>0.625 \u2013 0.909</small>"));
  EXPECT_TRUE(has(part, ">1.25<"));  // percentage points
  EXPECT_TRUE(has(part, ">0.9804<"));
  EXPECT_TRUE(has(part, "<span class=\"chip role\">apart</span>"));
  // c less a.
  EXPECT_TRUE(has(part, "<small>\u22120.000100 \u2013 0.000300</small>"));
  EXPECT_TRUE(has(part, "<span class=\"chip\">not apart</span>"));
  EXPECT_TRUE(has(part, "not apart: <bdi>a</bdi> and <bdi>c</bdi>."));
  EXPECT_TRUE(has(page, "cannot tell the two closest, <bdi>a</bdi> and <bdi>c</bdi>, apart"));
}

TEST(PageDifferences, DecideWhereIntervalsOverlap) {
  const std::vector<Json> two = {candidate("a", 0.01), candidate("b", 0.011)};
  const std::string known = audit_page(audit_of(two, {pair("a", "b", 0.001, 0.0001)}));
  EXPECT_FALSE(has(known, "overlap."));
  EXPECT_FALSE(has(known, "cannot tell the two closest"));
  const std::string unknown = audit_page(audit_of(two, {}));
  EXPECT_TRUE(has(unknown, "of the two closest, <bdi>a</bdi> and <bdi>b</bdi>, overlap."));
  EXPECT_EQ(part_of(unknown), "");
}

TEST(PageDifferences, AreUnknownWithoutAnInterval) {
  Json p = pair("a", "b", 0.001, 0);
  p["mean_kld_difference_interval"] = nullptr;
  p.erase("mean_kld_ratio");
  p.erase("mean_kld_ratio_interval");
  const std::string part =
      part_of(audit_page(audit_of({candidate("a", 0.01), candidate("b", 0.011)}, {p})));
  EXPECT_TRUE(has(part, "<span class=\"chip\">unknown</span>"));
  EXPECT_TRUE(has(part, "<td class=\"n times\">\u2013</td>"));
  EXPECT_FALSE(has(part, "Each is apart"));
}

// Documents that are shown as one: a pair counts if any of them has both.
TEST(PageDifferences, AreFoundInEveryDocument) {
  const Json ab =
      audit_of({candidate("a", 0.01), candidate("b", 0.02)}, {pair("a", "b", 0.01, 0.001)});
  const Json ac =
      audit_of({candidate("c", 0.03), candidate("a", 0.01)}, {pair("c", "a", -0.02, 0.001)});
  const Json d = audit_of({candidate("d", 0.04)}, {});
  const std::string part =
      part_of(audit_page(std::vector<PageSource>{{"1", ab}, {"2", ac}, {"3", d}}));
  EXPECT_TRUE(has(part, "<b>0.0100</b>"));
  EXPECT_TRUE(has(part, "<b>0.0200</b>"));
  EXPECT_TRUE(has(part, "in one audit, or infinitely far: d."));
  // The same names against another reference say nothing.
  Json other = audit_of({candidate("a", 0.01), candidate("b", 0.02)}, {});
  Json p = pair("a", "b", 0.5, 0.1);
  p["reference"] = "qat";
  other["differences"].push_back(p);
  EXPECT_EQ(part_of(audit_page(other)), "");
}

TEST(PageDifferences, DrawOrRefuseWhatIsThere) {
  const std::vector<Json> two = {candidate("a", 0.01), candidate("b<i>", 0.02)};
  Json p = pair("a", "b<i>", 0, 0);  // equal to the last bit
  p["mean_kld_ratio"] = nullptr;
  const std::string part = part_of(audit_page(audit_of(two, {p})));
  EXPECT_TRUE(has(part, "not apart"));
  EXPECT_FALSE(has(part, "<i>"));
  EXPECT_FALSE(has(part, "nan"));
  p["mean_kld_difference"] = nullptr;  // infinity
  EXPECT_EQ(part_of(audit_page(audit_of(two, {p}))), "");
  p["mean_kld_difference"] = 1e29;
  p["mean_kld_difference_interval"] = Json::array({-1e-29, 1e30});
  EXPECT_NE(part_of(audit_page(audit_of(two, {p}))), "");
  p["baseline"] = 5;
  try {
    (void)audit_page(std::vector<PageSource>{{"x.json", audit_of(two, {p})}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.info().file, "x.json");
    EXPECT_EQ(error.info().place, "differences[0].key \"baseline\"");
  }
}

Figure figure(double value, double half) {
  return {.value = value, .interval = Interval{value - half, value + half}};
}

TEST(SignedScale, ShowsTheNarrowestIntervalAtZero) {
  const std::vector<Figure> figures = {figure(0.00001, 0.00002), figure(0.07, 0.002)};
  const page::SignedScale scale = page::signed_scale(figures, 0, 400);
  EXPECT_DOUBLE_EQ(scale(scale.from), 0);
  EXPECT_DOUBLE_EQ(scale(scale.to), 400);
  EXPECT_GT(scale(0.00003) - scale(-0.00001), 30);  // of 0.08 in 400
  EXPECT_LT(scale(-0.00001), scale(0));
  EXPECT_LT(scale(0.00003), scale(0.0001));
  for (const auto& nothing : {std::vector<Figure>{}, std::vector<Figure>{figure(0, 0)}}) {
    const page::SignedScale empty = page::signed_scale(nothing, 10, 20);
    EXPECT_EQ(empty(0), 10);
    EXPECT_EQ(page::signed_ticks(empty, 12)[0].label, "0");
  }
}

TEST(SignedScale, TicksKeepApart) {
  for (const auto& [low, high] : {std::pair(-0.0005, 0.005),
                                  {-3e-7, 12.0},
                                  {-8.0, 0.0},
                                  {0.0, 1e-12},
                                  {-1e29, 1e29},
                                  {0.02, 0.021}}) {
    const std::vector<Figure> figures = {{.value = high, .interval = Interval{low, high}}};
    const page::SignedScale scale = page::signed_scale(figures, 26, 374);
    const auto ticks = page::signed_ticks(scale, 12);
    ASSERT_GE(ticks.size(), 2u) << low << " " << high;
    EXPECT_EQ(ticks[0].value, 0);
    for (size_t i = 0; i < ticks.size(); ++i) {
      EXPECT_GE(ticks[i].value, scale.from);
      EXPECT_LE(ticks[i].value, scale.to);
      for (size_t k = 0; k < i; ++k) {
        const double room =
            (page::text_width(ticks[i].label, 12) + page::text_width(ticks[k].label, 12)) / 2;
        EXPECT_GT(std::abs(scale(ticks[i].value) - scale(ticks[k].value)), room);
      }
    }
  }
}

}  // namespace
}  // namespace carat::audit
