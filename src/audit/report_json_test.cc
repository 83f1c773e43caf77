#include "audit/report_json.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "base/rng.h"

namespace carat::audit {
namespace {

std::vector<std::vector<Position>> sample() {
  Rng rng(4);
  std::vector<std::vector<Position>> chunks(12);
  for (auto& chunk : chunks) {
    for (int32_t i = 1; i < 30; ++i) {
      Position p;
      p.kld = rng.uniform();
      p.reference_nll = 2;
      p.candidate_nll = 2 + rng.uniform();
      p.entropy = static_cast<float>(6 * rng.uniform());
      p.next = i;
      p.index = i;
      p.reference_top = {{{i, 0.5f}, {0, 0.25f}, {40, 0.1f}}};
      p.candidate_top = {{{rng.uniform() < 0.7 ? i : 50, 0.5f}, {0, 0.25f}, {41, 0.1f}}};
      chunk.push_back(p);
    }
  }
  return chunks;
}

// Two references, two candidates, two domains, all members filled in.
AuditReport full_report() {
  AuditReport report;
  report.provenance.texts = {
      {.file = {.path = "a.txt", .bytes = 9, .sha256 = std::string(64, 'a')}, .domain = "law"},
      {.file = {.path = "b.txt"}, .domain = "code", .tokens = 7}};
  report.references = {{.path = "bf16", .what = "original bf16"}, {.path = "qat"}};
  report.candidates = {
      {.path = "x.gguf", .files = {{.path = "x.gguf", .bytes = 5}}, .bytes = 5, .weights = 8},
      {.path = "y.gguf"}};
  report.domains = {"law", "code"};
  report.checks = {{"disjoint text", false, "3 windows"}};
  std::vector<int32_t> domains;
  const auto chunks = sample();
  for (size_t c = 0; c < chunks.size(); ++c) domains.push_back(c % 2);
  for (const size_t reference : {0, 1}) {
    for (const size_t candidate : {0, 1}) {
      Comparison c{.reference = reference, .candidate = candidate};
      c.summary = summarize(chunks, {}, domains);
      c.worst = find_worst(chunks);
      c.greedy = GreedyDivergence{.limit = 8, .first_differences = {8, 2, 5}};
      c.tensors = {{.name = "blk.0.q", .type = "Q4_0", .layer = 0, .weights = 4, .bytes = 3}};
      report.comparisons.push_back(c);
    }
    const std::vector<std::span<const std::vector<Position>>> both = {chunks, chunks};
    report.differences.push_back(paired_differences(both, {}).at(0));
    report.differences.back().reference = reference;
  }
  return report;
}

TEST(ReportJson, HasAnEntryForEveryCandidateAndReference) {
  const Json j = report_json(full_report());
  ASSERT_EQ(j["candidates"].size(), 4u);
  EXPECT_EQ(j["candidates"][1]["candidate"], "y.gguf");
  EXPECT_EQ(j["candidates"][1]["reference"], "bf16");
  EXPECT_EQ(j["candidates"][2]["candidate"], "x.gguf");
  EXPECT_EQ(j["candidates"][2]["reference"], "qat");
  EXPECT_FALSE(j.contains("mean_kld"));  // of which?
  EXPECT_EQ(j["models"].size(), 4u);
  EXPECT_EQ(j["models"][0]["role"], "reference");
  EXPECT_EQ(j["models"][0]["what"], "original bf16");
  EXPECT_FALSE(j["models"][1].contains("what"));
  EXPECT_EQ(j["texts"][0]["sha256"], std::string(64, 'a'));
  EXPECT_EQ(j["checks"][0]["passed"], false);
  EXPECT_TRUE(j["noise_kld"].is_null());  // nobody said how it was measured
}

TEST(ReportJson, SaysEveryFigureOfAComparison) {
  const AuditReport report = full_report();
  const Json c = report_json(report)["candidates"][3];
  const Summary& s = report.comparisons[3].summary;
  for (const FigureKey& f : figure_keys()) {
    const Figure& figure = s.*f.figure;
    const std::string interval = std::string(f.key) + "_interval";
    EXPECT_EQ(c[f.key], figure.value);
    ASSERT_TRUE(c.contains(interval));
    EXPECT_EQ(c[interval].is_null(), !figure.interval.has_value()) << f.key;
    if (figure.interval) {
      EXPECT_EQ(c[interval][1], figure.interval->high);
    }
  }
  EXPECT_TRUE(c["p999_kld_interval"].is_null());  // 348 positions
  EXPECT_EQ(c["by_domain"][1]["domain"], "code");
  EXPECT_EQ(c["by_domain"][1]["tokens"], 6 * 29);
  EXPECT_EQ(c["by_position"][0]["from"], 1);
  EXPECT_TRUE(c["by_entropy"].back()["to"].is_null());
  EXPECT_EQ(c["worst"].size(), 20u);
  EXPECT_EQ(c["greedy"]["equal"], 1);
  EXPECT_EQ(c["greedy"]["median_first_difference"], 5);
  EXPECT_EQ(c["tensors"][0]["layer"], 0);
}

TEST(ReportJson, SaysEveryPairOfCandidates) {
  AuditReport report = full_report();
  report.differences[1].mean_kld = {0.5, Interval{0.25, 0.75}};
  report.differences[1].kld_ratio.reset();
  const Json j = report_json(report)["differences"];
  ASSERT_EQ(j.size(), 2u);
  EXPECT_EQ(j[0]["reference"], "bf16");
  EXPECT_EQ(j[0]["baseline"], "x.gguf");
  EXPECT_EQ(j[0]["candidate"], "y.gguf");
  EXPECT_EQ(j[0]["mean_kld_difference"], 0);
  EXPECT_EQ(j[0]["mean_kld_difference_interval"], Json::array({0.0, 0.0}));
  EXPECT_EQ(j[0]["mean_kld_ratio"], 1);
  EXPECT_TRUE(j[0]["top1_agreement_difference_interval"].is_null());
  EXPECT_EQ(j[0]["perplexity_ratio_interval"], Json::array({1.0, 1.0}));
  EXPECT_EQ(j[0]["apart"], false);
  EXPECT_EQ(j[1]["reference"], "qat");
  EXPECT_EQ(j[1]["mean_kld_difference_interval"], Json::array({0.25, 0.75}));
  EXPECT_FALSE(j[1].contains("mean_kld_ratio"));
  EXPECT_EQ(j[1]["apart"], true);
  report.differences[0].mean_kld.interval.reset();
  EXPECT_TRUE(report_json(report)["differences"][0]["apart"].is_null());
}

TEST(ReportJson, ASingleComparisonStandsAtTheTopToo) {
  AuditReport report = full_report();
  report.comparisons.resize(1);
  report.noise_how = "in steps of another size";
  const Json j = report_json(report);
  for (const char* key :
       {"candidate", "tokens", "mean_kld", "top1_agreement_interval", "max_kld"}) {
    EXPECT_EQ(j[key], j["candidates"][0][key]) << key;
  }
  EXPECT_EQ(j["reference"], "bf16");
  EXPECT_EQ(j["noise_kld"], 0);
}

}  // namespace
}  // namespace carat::audit
