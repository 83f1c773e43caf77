#include "audit/page/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "audit/page/differences.h"
#include "audit/page/document.h"
#include "audit/page/html.h"
#include "audit/page/parts.h"

namespace carat::audit {
namespace page {
namespace {

constexpr size_t kTitleName = 48;  // characters

std::string bold(const std::string& text) { return "<strong>" + text + "</strong>"; }

std::string name_html(const ModelText& model) {
  return "<bdi>" + escape(shortened(model.name, kTitleName)) + "</bdi>";
}

// "a, b and 3 more".
std::string candidates_title(const Section& section) {
  constexpr size_t kNamed = 3;
  std::string text;
  const size_t n = section.rows.size();
  const size_t named = n <= kNamed ? n : kNamed - 1;
  for (size_t i = 0; i < named; ++i) {
    if (i > 0) text += i + 1 == n ? " and " : ", ";
    const ModelText& model = section.rows[i].model;
    text +=
        i == 0 ? name_html(model) : "<bdi>" + escape(shortened(model.label, kTitleName)) + "</bdi>";
  }
  if (named < n) text += fmt::format(" and {} more", n - named);
  return text;
}

std::string verdict(const Section& section) {
  const Row& best = section.rows.front();
  if (!std::isfinite(best.mean_kld.value)) {
    return fmt::format(
        "{} is infinitely far from {}: it gives no probability to something that "
        "the reference expects.",
        bold(name_html(best.model)), name_html(section.reference));
  }
  std::string text;
  if (best.mean_kld.value == 0) {
    text = fmt::format("{} expects {} what {} expects: its KLD is {} for every token",
                       bold(name_html(best.model)), bold("exactly"), name_html(section.reference),
                       bold("0"));
  } else {
    const std::string interval = interval_text(best.mean_kld);
    text = fmt::format("{} {} {}: its mean KLD is {} nats a token{}", bold(name_html(best.model)),
                       section.rows.size() > 1 ? "is closest to" : "against",
                       name_html(section.reference) +
                           (section.reference.what.empty()
                                ? ""
                                : " (" + escape(shortened(section.reference.what, 40)) + ")"),
                       bold(nats_text(best.mean_kld.value)),
                       interval.empty() ? "" : " (95&nbsp;%: " + interval + ")");
  }
  if (std::isfinite(best.top1_agreement.value)) {
    text += fmt::format(", with the same most likely token {} of the time",
                        bold(percent_text(best.top1_agreement.value)));
  }
  if (best.model.bytes > 0) {
    text += ", at " + bytes_text(static_cast<double>(best.model.bytes));
    if (best.model.bits_per_weight > 0) {
      text += fmt::format(", {} bits per weight", fixed_text(best.model.bits_per_weight, 2));
    }
  }
  return text + ".";
}

// Who else matters: the front, and whether the order is certain.
std::string second_thought(const Section& section, std::span<const Run> runs) {
  if (section.rows.size() < 2) return {};
  const auto front = std::count_if(section.rows.begin(), section.rows.end(),
                                   [](const Row& row) { return row.on_front; });
  std::string text;
  if (front == static_cast<int64_t>(section.rows.size())) {
    text = fmt::format(
        "All {} candidates are worth their bytes: none has a rival that is both as "
        "small and closer.",
        section.rows.size());
  } else if (front > 0) {
    text = fmt::format(
        "{} of {} candidates {} worth the bytes: the others have a rival that is as "
        "small and closer.",
        front, section.rows.size(), front == 1 ? "is" : "are");
  }
  const Row& best = section.rows[0];
  const Row& next = section.rows[1];
  const auto pair = beside(next, best, runs);
  if (const auto decided = pair ? excludes_zero(pair->mean_kld) : std::nullopt) {
    if (!*decided) {
      text += fmt::format(" This much text cannot tell the two closest, {} and {}, apart.",
                          name_html(best.model), name_html(next.model));
    }
    return text;
  }
  const auto& a = best.mean_kld.interval;
  const auto& b = next.mean_kld.interval;
  if (a && b && b->low <= a->high) {
    text += fmt::format(" The intervals of the two closest, {} and {}, overlap.",
                        name_html(best.model), name_html(next.model));
  }
  return text;
}

std::string tile(const std::string& name, const std::string& value, const std::string& small) {
  return fmt::format("<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>\n", name, value, small);
}

std::string tiles(const Section& section, const Run& run) {
  const Row& best = section.rows.front();
  std::string html = "<dl class=\"tiles\">";
  const auto small = [](const std::string& interval, const char* otherwise) {
    return interval.empty() ? std::string(otherwise) : interval;
  };
  html += tile("Mean KLD, nats", nats_text(best.mean_kld.value),
               small(interval_text(best.mean_kld), "&nbsp;"));
  html += tile("Same top\u20111", percent_text(best.top1_agreement.value),
               small(interval_percent_text(best.top1_agreement), "&nbsp;"));
  html += tile("Perplexity ratio", fixed_text(best.perplexity_ratio.value, 4),
               small(interval_fixed_text(best.perplexity_ratio, 4), "&nbsp;"));
  html += tile("Tokens compared", count_text(best.tokens),
               "in " + counted(best.chunks, "chunk", "chunks") +
                   (run.noise_kld ? ", noise " + nats_text(*run.noise_kld) : ""));
  return html + "</dl>\n";
}

std::string plain_title(const Document& document) {
  const Section& section = document.sections.front();
  std::string text = shortened(section.rows.front().model.name, kTitleName);
  if (section.rows.size() > 1) text += fmt::format(" and {} more", section.rows.size() - 1);
  return text + " against " + shortened(section.reference.name, kTitleName);
}

std::string plain_verdict(const Section& section) {
  const Row& best = section.rows.front();
  return fmt::format("{}: mean KLD {} nats a token, same top-1 {}, over {} tokens.",
                     best.model.name, nats_text(best.mean_kld.value),
                     percent_text(best.top1_agreement.value), count_text(best.tokens));
}

std::string head(const Document& document) {
  const std::string title = escape(plain_title(document));
  const std::string about = escape(plain_verdict(document.sections.front()));
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
         "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
         "<meta name=\"referrer\" content=\"no-referrer\">\n"
         "<meta name=\"color-scheme\" content=\"light dark\">\n"
         "<link rel=\"icon\" href=\"data:,\">\n"
         "<title>" +
         title +
         " \u00b7 carat audit</title>\n"
         "<meta name=\"description\" content=\"" +
         about +
         "\">\n"
         "<meta property=\"og:title\" content=\"" +
         title +
         "\">\n"
         "<meta property=\"og:description\" content=\"" +
         about +
         "\">\n"
         "<style>" +
         style_sheet() + "</style>\n</head>\n<body>\n";
}

std::string role_html(const ModelText& reference) {
  return reference.what.empty()
             ? std::string()
             : " <span class=\"chip role\">" + escape(shortened(reference.what, 40)) + "</span>";
}

std::string header_html(const Document& document) {
  const Section& section = document.sections.front();
  std::string html =
      "<header><div class=\"brand\"><svg viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path "
      "d=\"M5 3h10l4 5-9 10L1 8zM1 8h18M7 8l3 10 3-10-3-5z\"/></svg>carat audit"
      "<span>what quantization cost</span></div>\n";
  html += fmt::format("<h1>{} <span class=\"vs\">against</span> {}</h1>\n",
                      candidates_title(section), name_html(section.reference));
  html += "<p class=\"verdict\">" + verdict(section) + "</p>\n";
  const std::string more = second_thought(section, document.runs);
  if (!more.empty()) html += "<p class=\"verdict\">" + more + "</p>\n";
  for (size_t i = 1; i < std::min<size_t>(document.sections.size(), 3); ++i) {
    html += "<p class=\"verdict\">" + verdict(document.sections[i]) + "</p>\n";
  }
  html += tiles(section, document.runs[section.source]);
  for (const Run& run : document.runs) {
    for (const CheckText& check : run.checks) {
      if (check.passed) continue;
      html += "<p class=\"notice\"><b>Check failed:</b> " + escape(check.name) + ": " +
              escape(check.detail) + "</p>\n";
    }
  }
  return html + "</header>\n";
}

std::string section_heading(const Document& document, size_t index) {
  const Section& section = document.sections[index];
  const Run& run = document.runs[section.source];
  std::string texts;
  for (const TextText& text : run.texts) {
    texts += (texts.empty() ? "" : ", ") + escape(shortened(text.file.path, 48));
  }
  return fmt::format(
      "<h2 id=\"against-{}\">Against {}{}</h2><p class=\"lead\">{} over {} tokens{}. Reference "
      "perplexity {}.</p>\n",
      index + 1, name_html(section.reference), role_html(section.reference),
      section.rows.size() == 1 ? "One candidate"
                               : fmt::format("{} candidates", section.rows.size()),
      count_text(section.rows.front().tokens), texts.empty() ? "" : " of " + texts,
      fixed_text(section.rows.front().reference_perplexity.value, 3));
}

std::string navigation(const Document& document) {
  std::string html = "<nav aria-label=\"Parts of this page\">";
  for (size_t i = 0; i < document.sections.size(); ++i) {
    const ModelText& reference = document.sections[i].reference;
    html += fmt::format(
        "<a href=\"#against-{}\">Against {}</a>", i + 1,
        escape(shortened(reference.what.empty() ? reference.name : reference.what, kTitleName)));
  }
  return html +
         "<a href=\"#method\">How it was measured</a><a href=\"#provenance\">Provenance</a>"
         "</nav>\n";
}

std::string section_html(const Document& document, size_t index) {
  const Section& section = document.sections[index];
  return "<section>" + section_heading(document, index) + candidates_html(section) +
         scatter_html(section, document.runs[section.source]) +
         differences_html(section, document.runs) + distribution_html(section) +
         breakdowns_html(section) + tensors_html(section) + worst_html(section) +
         greedy_html(section) + "</section>\n";
}

std::string page_of(const Document& document) {
  std::string html = head(document) + header_html(document) + "<main>\n" + navigation(document);
  if (document.sections.size() > 1) {
    html +=
        "<p class=\"notice\">Candidates stand together only if they were measured against the "
        "same reference over the same tokens. Figures of different parts must not be "
        "compared.</p>\n";
  }
  for (size_t i = 0; i < document.sections.size(); ++i) html += section_html(document, i);
  html += method_html(document) + provenance_html(document);
  return html +
         "</main>\n<footer>Made by <code>carat report</code> from the audit&#39;s JSON. The page "
         "is "
         "one file; it has no script and loads nothing.</footer>\n</body>\n</html>\n";
}

}  // namespace
}  // namespace page

std::string audit_page(std::span<const PageSource> sources) {
  return page::page_of(page::read_document(sources));
}

std::string audit_page(const Json& report) {
  const PageSource source{.name = {}, .report = report};
  return audit_page(std::span(&source, 1));
}

}  // namespace carat::audit
