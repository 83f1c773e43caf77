#include "audit/page/page.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "audit/page/html.h"
#include "audit/page/labels.h"
#include "audit/page/sections.h"
#include "audit/page/svg.h"
#include "base/error.h"

namespace carat::audit {
namespace {

Json model(const std::string& path, const char* role, int64_t bytes) {
  Json j{{"path", path}, {"role", role}, {"bytes", bytes}, {"bits_per_weight", 4.5}};
  j["files"] = Json::array({Json{{"path", path}, {"bytes", bytes}}});
  return j;
}

Json candidate(const std::string& path, double kld) {
  Json j{{"candidate", path}, {"reference", "teacher"}, {"tokens", 5000}, {"chunks", 20}};
  j["mean_kld"] = kld;
  j["mean_kld_interval"] = Json::array({kld * 0.9, kld * 1.1});
  j["top1_agreement"] = 0.9375;
  return j;
}

// An audit with the least a document has.
Json audit_of(const std::vector<std::string>& paths) {
  Json j{{"schema", "carat-audit-1"}, {"reference", "teacher"}, {"context", 512}};
  j["models"] = Json::array({model("teacher", "reference", 9000000)});
  j["candidates"] = Json::array();
  for (size_t i = 0; i < paths.size(); ++i) {
    const auto n = static_cast<double>(i + 1);
    j["models"].push_back(model(paths[i], "candidate", static_cast<int64_t>(9e6 / n)));
    j["candidates"].push_back(candidate(paths[i], 0.01 * n));
  }
  return j;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Page, NamesEveryCandidateAndItsFigures) {
  std::vector<std::string> paths;
  for (int i = 0; i < 12; ++i) paths.push_back("quants/file-" + std::to_string(i) + ".gguf");
  const std::string page = audit_page(audit_of(paths));
  for (int i = 0; i < 12; ++i) {
    EXPECT_TRUE(has(page, "<bdi>file-" + std::to_string(i) + "</bdi>")) << i;
  }
  EXPECT_TRUE(has(page, "0.0100"));
  EXPECT_TRUE(has(page, "0.00900 \u2013 0.0110") || has(page, "0.0090 \u2013 0.0110"))
      << page.size();
  EXPECT_TRUE(has(page, "93.75"));
  EXPECT_EQ(count(page, "role=\"img\""), 12u + 2);  // bars of the table, the scatter twice
}

TEST(Page, LeavesOutWhatTheDocumentLacks) {
  const std::string page = audit_page(audit_of({"a.gguf"}));
  for (const char* title : {"worst tokens", "tensors lost", "answers stay", "Where it is lost"}) {
    EXPECT_FALSE(has(page, title)) << title;
  }
  for (const char* bad : {"nan<", "nan ", "\"nan", ",nan", "inf,"})
    EXPECT_FALSE(has(page, bad)) << bad;
}

TEST(Page, ColoursTheErrorsOfMatrices) {
  Json j = audit_of({"a.gguf"});
  const auto tensor = [](const char* name, int64_t weights, double error) {
    return Json{{"name", name},  {"type", "Q4_0"},          {"layer", 0},
                {"bytes", 1000}, {"relative_error", error}, {"weights", weights}};
  };
  j["candidates"][0]["tensors"] = Json::array({tensor("blk.0.ffn_norm.weight", 128, 0.001),
                                               tensor("blk.0.ffn_up.weight", 16384, 0.08),
                                               tensor("blk.0.ffn_down.weight", 16384, 0.1)});
  const std::string page = audit_page(j);
  EXPECT_TRUE(has(page, "Which tensors lost what"));
  // The scale ends at the matrices' errors; the norm, though drawn, does not stretch it.
  EXPECT_TRUE(has(page, "<div class=\"heat-scale\"><span>8.00"));
  EXPECT_EQ(count(page, "blk.0.ffn_norm.weight: Q4_0"), 2u);  // the wide map and the narrow one
}

TEST(Page, EscapesEverythingFromFiles) {
  Json j = audit_of({"<script>alert(1)</script>.gguf", "b\"'&\x07\u202e.gguf", "\xff\xfe.gguf"});
  Json worst{{"kld", 1.5}, {"chunk", 1}, {"index", 2}, {"before", "<b>"}, {"after", "</p>"}};
  worst["next"] = "<i>" + std::string(5000, 'x');
  worst["reference_top"] = Json::array({Json{{"text", "\xc3"}, {"probability", 0.5}}});
  j["candidates"][0]["worst"] = Json::array({worst});
  j["command_line"] = "</pre><script>";
  const std::string page = audit_page(j);
  EXPECT_FALSE(has(page, "<script"));
  EXPECT_TRUE(has(page, "&lt;script&gt;"));
  EXPECT_FALSE(has(page, "<b>&lt;"));
  EXPECT_TRUE(has(page, "&quot;&#39;&amp;\u2407\u27e8U+202E\u27e9"));
  EXPECT_FALSE(has(page, "\xff"));
  EXPECT_FALSE(has(page, std::string(100, 'x')));
  EXPECT_TRUE(has(page, "\ufffd"));
}

TEST(Page, LoadsNothing) {
  const std::string page = audit_page(audit_of({"a.gguf", "b.gguf"}));
  EXPECT_TRUE(has(page, "default-src 'none'"));
  for (const char* bad : {"http:", "https:", "src=", "url(", "@import", "<script"}) {
    EXPECT_FALSE(has(page, bad)) << bad;
  }
}

TEST(Page, ShowsInfiniteAndZeroDivergence) {
  Json j = audit_of({"same.gguf", "far.gguf", "b.gguf"});
  j["candidates"][0]["mean_kld"] = 0;
  j["candidates"][0]["mean_kld_interval"] = nullptr;
  j["candidates"][1]["mean_kld"] = nullptr;  // as JSON writes infinity
  j["candidates"][1]["mean_kld_interval"] = nullptr;
  const std::string page = audit_page(j);
  EXPECT_TRUE(has(page, "<b>\u221e</b>"));
  EXPECT_TRUE(has(page, "<b>0</b>"));
  EXPECT_TRUE(has(page, "finite KLD: far."));
  j["candidates"][1]["mean_kld"] = std::numeric_limits<double>::infinity();
  EXPECT_EQ(audit_page(j), page);
}

TEST(Page, PutsTogetherOnlyWhatWasMeasuredAlike) {
  const Json a = audit_of({"a.gguf"});
  Json b = audit_of({"b.gguf"});
  const std::vector<PageSource> alike = {{"1.json", a}, {"2.json", b}};
  EXPECT_EQ(count(audit_page(alike), "<section>"), 1u);
  b["context"] = 256;
  const std::vector<PageSource> unlike = {{"1.json", a}, {"2.json", b}};
  EXPECT_EQ(count(audit_page(unlike), "<section>"), 2u);
  const std::vector<PageSource> twice = {{"1.json", a}, {"2.json", a}};
  EXPECT_EQ(audit_page(twice).find("<span class=\"rank\">2"), std::string::npos);
}

TEST(Page, DrawsOrRefusesAnySize) {
  Json j = audit_of({"a.gguf", "b.gguf"});
  j["candidates"][0]["mean_kld"] = 5e-324;
  j["candidates"][0]["mean_kld_interval"] = Json::array({0, 1e-310});
  j["candidates"][1]["mean_kld"] = 1e29;
  j["candidates"][1]["kld_histogram"] =
      Json::array({Json{{"from", 1e-31}, {"to", nullptr}, {"tokens", 7}}});
  j["candidates"][1]["max_kld"] = -1;
  j["models"][1]["bytes"] = std::numeric_limits<int64_t>::max();
  EXPECT_TRUE(has(audit_page(j), "</html>"));
  j["candidates"][1]["mean_kld"] = 1e308;
  EXPECT_THROW((void)audit_page(j), Error);
}

TEST(Page, TellsReferencesApart) {
  Json j = audit_of({"a.gguf"});
  Json qat = model("qat@role=qat", "reference", 9000000);
  qat["what"] = "QAT bf16";
  j["models"][0]["what"] = "original bf16";
  j["models"].push_back(qat);
  j["candidates"].push_back(candidate("a.gguf", 0.002));
  j["candidates"][1]["reference"] = "qat@role=qat";
  const std::string page = audit_page(j);
  EXPECT_EQ(count(page, "<section>"), 2u);
  EXPECT_TRUE(has(page, "Against <bdi>teacher</bdi> <span class=\"chip role\">original bf16"));
  EXPECT_TRUE(has(page, "Against <bdi>qat</bdi> <span class=\"chip role\">QAT bf16"));
}

TEST(Page, RefusesWhatIsNoAudit) {
  EXPECT_THROW((void)audit_page(Json::array()), Error);
  EXPECT_THROW((void)audit_page(Json{{"reference", "x"}}), Error);
  Json j = audit_of({"a"});
  j["schema"] = "carat-audit-9";
  EXPECT_THROW((void)audit_page(j), Error);
  j = audit_of({"a"});
  j["candidates"][0]["mean_kld"] = "0.1";
  try {
    (void)audit_page(std::vector<PageSource>{{"x.json", j}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.info().file, "x.json");
    EXPECT_EQ(error.info().place, "candidates[0].mean_kld");
  }
  EXPECT_THROW((void)audit_page(audit_of({})), Error);
}

TEST(Page, FrontHasNoRivals) {
  Json j = audit_of({"small.gguf", "large.gguf"});
  j["models"][1]["bytes"] = 100;  // smaller and closer than the other one
  const std::string page = audit_page(j);
  EXPECT_TRUE(has(page, "1 of 2 candidates is worth the bytes"));
  EXPECT_EQ(count(page, "dot off"), 1u);
}

TEST(Html, NumbersAsPeopleReadThem) {
  using namespace page;
  EXPECT_EQ(nats_text(0), "0");
  EXPECT_EQ(nats_text(0.012345), "0.0123");
  EXPECT_EQ(nats_text(1.5), "1.50");
  EXPECT_EQ(nats_text(3.21e-6), "3.21\u00d710\u207b\u2076");
  EXPECT_EQ(nats_text(std::numeric_limits<double>::quiet_NaN()), "\u2013");
  EXPECT_EQ(count_text(1234567), "1,234,567");
  EXPECT_EQ(bytes_text(2620000000), "2.62\u00a0GB");
  EXPECT_EQ(shortened("abcdefghij", 5), "ab\u2026ij");
  EXPECT_EQ(last_characters("\u00e4\u00f6\u00fc", 2), "\u2026\u00f6\u00fc");
}

TEST(Labels, DoNotMeet) {
  std::vector<page::Point> points;
  for (int i = 0; i < 8; ++i) {
    points.push_back({100.0 + 3 * i, 100.0 + 2 * i, "candidate-" + std::to_string(i)});
  }
  const auto labels = page::place_labels(points, {0, 0, 600, 400}, {}, 12);
  int placed = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (!labels[i]) continue;
    ++placed;
    for (size_t k = i + 1; k < labels.size(); ++k) {
      if (!labels[k]) continue;
      EXPECT_FALSE(labels[i]->box.meets(labels[k]->box)) << i << " " << k;
    }
  }
  EXPECT_GE(placed, 6);
}

TEST(Scale, TicksLieInside) {
  const page::Scale scale = page::log_scale(0.0012, 0.33, 400, 10);
  EXPECT_LE(scale.from, 0.0012);
  EXPECT_GE(scale.to, 0.33);
  EXPECT_EQ(scale(scale.from), 400);
  int named = 0;
  for (const page::Tick& tick : page::log_ticks(scale, 6)) {
    EXPECT_GE(tick.value, scale.from * 0.999);
    EXPECT_LE(tick.value, scale.to * 1.001);
    named += !tick.label.empty();
  }
  EXPECT_GE(named, 2);
  EXPECT_EQ(page::round_values(0, 1, 4), (std::vector<double>{0, 0.25, 0.5, 0.75, 1}));
}

TEST(TensorKind, LeavesTheLayerOut) {
  EXPECT_EQ(page::tensor_kind("blk.3.attn_q.weight", 3), "attn_q");
  EXPECT_EQ(page::tensor_kind("model.language_model.layers.11.mlp.up_proj.weight", 11),
            "mlp.up_proj");
  EXPECT_EQ(page::tensor_kind("token_embd.weight", -1), "token_embd");
}

}  // namespace
}  // namespace carat::audit
