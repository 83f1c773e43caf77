#include "app/audit_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "app/audit_differences.h"
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

using Comparisons = std::vector<const audit::Comparison*>;

Comparisons against(const audit::AuditReport& report, size_t reference) {
  Comparisons list;
  for (const audit::Comparison& c : report.comparisons) {
    if (c.reference == reference) list.push_back(&c);
  }
  return list;
}

// Intervals where decisions are made; --json has them all.
void print_figures(const audit::AuditReport& report, const Comparisons& list) {
  const bool sized = std::any_of(list.begin(), list.end(), [&](const audit::Comparison* c) {
    return report.candidates[c->candidate].bits_per_weight > 0;
  });
  std::vector<std::string> headings = {"candidate", "mean KLD", "median",          "p99",
                                       "p99.9",     "top-1 %",  "perplexity ratio"};
  if (sized) headings.push_back("bits");
  Table table(std::move(headings));
  for (const audit::Comparison* c : list) {
    const audit::Summary& s = c->summary;
    const audit::ModelInfo& candidate = report.candidates[c->candidate];
    std::vector<std::string> cells = {
        candidate.path, figure_text(s.mean_kld, 5), fmt::format("{:.5f}", s.median_kld.value),
        fmt::format("{:.4f}", s.p99_kld.value),
        // The value of a few positions is no quantile.
        s.p999_kld.interval ? fmt::format("{:.3f}", s.p999_kld.value) : "-",
        figure_text(s.top1_agreement, 2, 100), figure_text(s.perplexity_ratio, 4)};
    if (sized) cells.push_back(fmt::format("{:.2f}", candidate.bits_per_weight));
    table.add(std::move(cells));
  }
  fmt::print("{}", table.text());
}

void print_paired(const audit::AuditReport& report, size_t reference) {
  const std::string text = differences_text(report, reference);
  if (!text.empty()) fmt::print("\n{}", text);
}

std::string percent(double share) { return fmt::format("{:.2f}", 100 * share); }

// Share of positions with another first choice, of those whose margin lies from `from` on.
std::string flips_text(const std::vector<audit::Bin>& bins, double from) {
  for (const audit::Bin& bin : bins) {
    if (bin.from == from) return percent(1 - bin.top1_agreement.value);
  }
  return "-";
}

void print_flips(const audit::AuditReport& report, const Comparisons& list) {
  const std::span<const double> edges = audit::bin_edges(audit::Axis::kMargin);
  std::vector<std::string> headings = {"candidate", "max KLD", "mean dp %", "RMS dp %", "top-5 %"};
  for (size_t i = 0; i < edges.size(); ++i) {
    headings.push_back(i + 1 < edges.size()
                           ? fmt::format("flips % {:g}..{:g}", edges[i], edges[i + 1])
                           : fmt::format("from {:g}", edges[i]));
  }
  Table table(std::move(headings));
  for (const audit::Comparison* c : list) {
    const audit::Summary& s = c->summary;
    std::vector<std::string> cells = {
        report.candidates[c->candidate].path, fmt::format("{:.3f}", s.max_kld),
        fmt::format("{:+.3f}", 100 * s.mean_delta_p.value), percent(s.rms_delta_p.value),
        percent(s.top5_agreement.value)};
    for (const double edge : edges) cells.push_back(flips_text(s.breakdown.by_margin, edge));
    table.add(std::move(cells));
  }
  fmt::print(
      "\nflips: another most likely token, by how far the reference's first is above its "
      "second; dp: of the next token's probability\n{}",
      table.text());
}

void print_domains(const audit::AuditReport& report, const Comparisons& list) {
  if (report.domains.empty()) return;
  std::vector<std::string> headings = {"mean KLD in"};
  headings.insert(headings.end(), report.domains.begin(), report.domains.end());
  const size_t columns = headings.size();
  Table table(std::move(headings));
  for (const audit::Comparison* c : list) {
    std::vector<std::string> cells(columns, "-");
    cells[0] = report.candidates[c->candidate].path;
    for (const audit::Bin& bin : c->summary.breakdown.by_domain) {
      cells.at(static_cast<size_t>(bin.from) + 1) = figure_text(bin.mean_kld, 5);
    }
    table.add(std::move(cells));
  }
  fmt::print("\n{}", table.text());
}

void print_greedy(const audit::AuditReport& report, const Comparisons& list) {
  if (!list.front()->greedy) return;
  Table table({"greedy answers", "prompts", "equal", "first difference, median", "earliest"});
  for (const audit::Comparison* c : list) {
    std::vector<double> sorted(c->greedy->first_differences.begin(),
                               c->greedy->first_differences.end());
    if (sorted.empty()) continue;
    std::sort(sorted.begin(), sorted.end());
    const auto limit = static_cast<double>(c->greedy->limit);
    const auto equal = std::count(sorted.begin(), sorted.end(), limit);
    table.add({report.candidates[c->candidate].path, fmt::format("{}", sorted.size()),
               fmt::format("{}", equal),
               fmt::format("{:g} of {}", audit::quantile(sorted, 0.5), c->greedy->limit),
               fmt::format("{:g}", sorted.front())});
  }
  fmt::print("\n{}", table.text());
}

void print_tensors(const audit::AuditReport& report, const Comparisons& list, int64_t most) {
  for (const audit::Comparison* c : list) {
    if (most == 0 || c->tensors.empty()) continue;
    std::vector<const audit::TensorError*> sorted;
    for (const audit::TensorError& t : c->tensors) sorted.push_back(&t);
    std::stable_sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
      return a->relative_error > b->relative_error;
    });
    if (sorted.size() > static_cast<size_t>(most)) sorted.resize(static_cast<size_t>(most));
    Table table({"tensors of " + report.candidates[c->candidate].path, "type", "RMS error %",
                 "largest, in RMS", "bits a weight"});
    for (const audit::TensorError* t : sorted) {
      const double bits = 8 * static_cast<double>(t->bytes) / static_cast<double>(t->weights);
      table.add({t->name, t->type, fmt::format("{:.3f}", 100 * t->relative_error),
                 fmt::format("{:.3f}", t->max_error), fmt::format("{:.2f}", bits)});
    }
    fmt::print("\n{}", table.text());
  }
}

std::string noise_text(const audit::AuditReport& report) {
  return report.noise_how.empty() ? "not measured" : fmt::format("{}", report.noise_kld);
}

void print_text(const audit::AuditReport& report, const audit::Summary& s) {
  const audit::Provenance& from = report.provenance;
  fmt::print(
      "text {}{}  {} tokens in {} chunks of {}, <bos> first, {} tokens of context at least\n",
      from.texts.empty() ? "unknown" : texts_of(from),
      from.format == "raw" ? "" : fmt::format(" ({})", from.format), s.tokens, s.chunks,
      from.context, from.min_context);
  fmt::print(
      "KLD is KL(reference || candidate) in nats a token; noise floor {}; (95 % intervals)\n",
      noise_text(report));
}

}  // namespace

void print_audit(const audit::AuditReport& report, int64_t tensors) {
  for (size_t r = 0; r < report.references.size(); ++r) {
    const Comparisons list = against(report, r);
    if (list.empty()) continue;
    const audit::Summary& first = list.front()->summary;
    const audit::ModelInfo& reference = report.references[r];
    fmt::print("{}reference {}{}  perplexity {}\n", r > 0 ? "\n" : "", reference.path,
               reference.what.empty() ? "" : fmt::format(" ({})", reference.what),
               figure_text(first.reference_perplexity, 3));
    if (r == 0) print_text(report, first);
    fmt::print("\n");
    print_figures(report, list);
    print_paired(report, r);
    print_flips(report, list);
    print_domains(report, list);
    print_greedy(report, list);
    print_tensors(report, list, tensors);
    if (r == 0 && first.chunks < 10) {
      fmt::print(stderr, "note: too few chunks ({}) for intervals to trust\n", first.chunks);
    }
  }
  for (const audit::Check& check : report.checks) {
    fmt::print("{}: {}: {}\n", check.passed ? "checked" : "CHECK FAILED", check.name, check.detail);
  }
}

}  // namespace carat::app
