#include "app/audit_differences.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

namespace carat::app {
namespace {

using audit::Difference;
using audit::Figure;
using audit::Interval;

// Three candidates against two references; from the first the second one is the closest.
audit::AuditReport three() {
  audit::AuditReport report;
  report.references = {{.path = "bf16"}, {.path = "qat"}};
  report.candidates = {{.path = "a.gguf"}, {.path = "b.gguf"}, {.path = "c.gguf"}};
  for (const size_t reference : {0, 1}) {
    for (const size_t candidate : {0, 1, 2}) {
      audit::Comparison c{.reference = reference, .candidate = candidate};
      c.summary.mean_kld.value = candidate == (reference == 0 ? 1 : 0) ? 0.01 : 0.02;
      report.comparisons.push_back(std::move(c));
    }
  }
  report.differences = {
      {.baseline = 0,
       .candidate = 1,
       .mean_kld = {-0.01, Interval{-0.012, -0.008}},
       .kld_ratio = Figure{0.5, Interval{0.4, 0.625}}},
      {.baseline = 0, .candidate = 2, .mean_kld = {0, Interval{-0.001, 0.001}}},
      {.baseline = 1, .candidate = 2, .mean_kld = {0.0000123, Interval{-0.000001, 0.0000256}}},
      {.reference = 1, .baseline = 0, .candidate = 1, .mean_kld = {0.01, {}}}};
  return report;
}

TEST(AuditDifferences, StandBesideTheClosest) {
  EXPECT_EQ(differences_text(three(), 0),
            "beside the closest on the same tokens, b.gguf\n"
            "candidate                           more KLD                 times  paired\n"
            "a.gguf            0.01000 (0.00800..0.01200)  2.000 (1.600..2.500)  apart\n"
            "c.gguf     0.0000123 (-0.0000010..0.0000256)                     -  not apart\n");
}

TEST(AuditDifferences, OfEachReferenceAlone) {
  EXPECT_EQ(differences_text(three(), 1),
            "beside the closest on the same tokens, a.gguf\n"
            "candidate  more KLD  times  paired\n"
            "b.gguf      0.01000      -  unknown\n");
}

TEST(AuditDifferences, NeedTwoCandidates) {
  audit::AuditReport report = three();
  report.comparisons.resize(1);
  report.differences.clear();
  EXPECT_EQ(differences_text(report, 0), "");
  EXPECT_EQ(differences_text(report, 1), "");
}

TEST(AuditDifferences, KeepToAHundredColumns) {
  audit::AuditReport report = three();
  for (auto& candidate : report.candidates) {
    candidate.path.insert(0, std::string(90, 'x') + "\xc3\xa9/");
  }
  report.differences[2].mean_kld = {1234.5678, Interval{-1000.25, 100000.125}};
  report.differences[2].kld_ratio = Figure{1.23456e7, Interval{1e-7, 123456}};
  std::istringstream lines(differences_text(report, 0));
  std::string line, all;
  while (std::getline(lines, line)) {
    EXPECT_LE(line.size(), 100u) << line;
    all += line;
  }
  for (const char* end : {"/a.gguf", "/b.gguf", "/c.gguf"}) {
    EXPECT_NE(all.find(end), std::string::npos) << end;
  }
}

}  // namespace
}  // namespace carat::app
