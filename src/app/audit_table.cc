#include "app/audit_table.h"

#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "app/table.h"

namespace carat::app {
namespace {

// "0.01234 (0.01200..0.01260)"
std::string figure_text(const audit::Figure& figure, int digits, double unit = 1) {
  std::string text = fmt::format("{:.{}f}", figure.value * unit, digits);
  if (figure.interval) {
    text += fmt::format(" ({:.{}f}..{:.{}f})", figure.interval->low * unit, digits,
                        figure.interval->high * unit, digits);
  }
  return text;
}

std::string texts_of(const audit::Provenance& provenance) {
  std::string names;
  for (const audit::TextInfo& text : provenance.texts) {
    names += (names.empty() ? "" : ", ") + text.file.path;
  }
  return names;
}

void print_comparisons(const audit::AuditReport& report, size_t reference) {
  // Intervals where decisions are made; --json has them all.
  Table table({"candidate", "mean KLD", "median", "p99", "top-1 %", "perplexity ratio"});
  for (const audit::Comparison& c : report.comparisons) {
    if (c.reference != reference) continue;
    const audit::Summary& s = c.summary;
    table.add({report.candidates[c.candidate].path, figure_text(s.mean_kld, 5),
               fmt::format("{:.5f}", s.median_kld.value), fmt::format("{:.4f}", s.p99_kld.value),
               figure_text(s.top1_agreement, 2, 100), figure_text(s.perplexity_ratio, 4)});
  }
  fmt::print("{}", table.text());
}

const audit::Summary* first_against(const audit::AuditReport& report, size_t reference) {
  for (const audit::Comparison& c : report.comparisons) {
    if (c.reference == reference) return &c.summary;
  }
  return nullptr;
}

}  // namespace

void print_audit(const audit::AuditReport& report) {
  const audit::Provenance& from = report.provenance;
  for (size_t r = 0; r < report.references.size(); ++r) {
    const audit::Summary* s = first_against(report, r);
    if (s == nullptr) continue;
    const audit::ModelInfo& reference = report.references[r];
    if (r > 0) fmt::print("\n");
    fmt::print("reference {}{}  perplexity {}\n", reference.path,
               reference.what.empty() ? "" : fmt::format(" ({})", reference.what),
               figure_text(s->reference_perplexity, 3));
    if (r == 0) {
      fmt::print(
          "text {}  {} tokens in {} chunks of {}, <bos> first, {} tokens of context at least\n",
          texts_of(from), s->tokens, s->chunks, from.context, from.min_context);
      fmt::print(
          "KLD is KL(reference || candidate) in nats a token; noise floor {}; (95 % intervals)\n",
          report.noise_kld);
    }
    fmt::print("\n");
    print_comparisons(report, r);
    if (r == 0 && s->chunks < 10) {
      fmt::print(stderr, "note: {} chunks are too few for intervals to trust\n", s->chunks);
    }
  }
  for (const audit::Check& check : report.checks) {
    fmt::print("{}: {}: {}\n", check.passed ? "checked" : "CHECK FAILED", check.name, check.detail);
  }
}

}  // namespace carat::app
