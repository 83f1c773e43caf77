#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

constexpr size_t kShownAtOnce = 4;
constexpr size_t kMostWorst = 20;
constexpr size_t kMostChoices = 5;
constexpr size_t kBefore = 260, kAfter = 90, kToken = 48;  // characters

// Tokens often begin with a space, which should be seen.
std::string token_html(const std::string& token) {
  if (token.empty()) return "<span class=\"soft\">(nothing)</span>";
  std::string text = escape(first_characters(token, kToken));
  std::string out;
  for (const char c : text) out += c == ' ' ? "\u00b7" : std::string(1, c);
  return out;
}

std::string choices_html(const std::string& title, const std::vector<Choice>& choices,
                         const std::string& next) {
  if (choices.empty()) return {};
  std::string html = "<div><h4>" + title + "</h4><ol>";
  for (size_t i = 0; i < std::min(choices.size(), kMostChoices); ++i) {
    const Choice& c = choices[i];
    html += fmt::format(
        "<li{}><code><bdi>{}</bdi></code><span class=\"meter\"><i style=\"width:{:.1f}%\"></i>"
        "</span><span class=\"n\">{}</span></li>",
        !next.empty() && c.text == next ? " class=\"hit\"" : "", token_html(c.text),
        100 * std::clamp(c.probability, 0.0, 1.0), percent_text(c.probability, 1));
  }
  return html + "</ol></div>";
}

std::string card(const WorstText& w, size_t rank) {
  std::string html = fmt::format(
      "<li><div class=\"head\"><span>{}</span><span>KLD <b>{}</b></span>", rank, nats_text(w.kld));
  if (std::isfinite(w.reference_probability) && std::isfinite(w.candidate_probability)) {
    html += fmt::format("<span>the marked token: {} for the reference, {} here</span>",
                        percent_text(w.reference_probability, 1),
                        percent_text(w.candidate_probability, 1));
  }
  html += fmt::format("<span>chunk {}, token {}</span></div>", w.chunk, w.index);
  html += fmt::format("<p class=\"context\"><bdi>{}<mark>{}</mark>{}</bdi></p>",
                      escape(last_characters(w.before, kBefore)), token_html(w.next),
                      escape(first_characters(w.after, kAfter)));
  html += "<div class=\"tops\">" + choices_html("the reference expected", w.reference_top, w.next) +
          choices_html("the candidate expected", w.candidate_top, w.next) + "</div></li>\n";
  return html;
}

std::string cards(const Row& row, size_t from, size_t to) {
  std::string html = "<ol class=\"worst\">";
  for (size_t i = from; i < to; ++i) html += card(row.worst[i], i + 1);
  return html + "</ol>";
}

}  // namespace

std::string worst_html(const Section& section) {
  std::string body;
  for (size_t i = 0; i < section.rows.size(); ++i) {
    const Row& row = section.rows[i];
    if (row.worst.empty()) continue;
    const size_t all = std::min(row.worst.size(), kMostWorst);
    const size_t at_once = std::min(all, kShownAtOnce);
    body += fmt::format(
        "<details{} style=\"{}\"><summary><span class=\"dot\"></span><bdi>{}</bdi> "
        "<span class=\"soft\">up to {} nats</span></summary>{}",
        body.empty() ? " open" : "", series_style(i, section.rows.size()), escape(row.model.label),
        nats_text(row.worst.front().kld), cards(row, 0, at_once));
    if (all > at_once) {
      body += fmt::format("<details><summary>{} more</summary>{}</details>", all - at_once,
                          cards(row, at_once, all));
    }
    body += "</details>\n";
  }
  if (body.empty()) return {};
  return figure_html("The worst tokens",
                     "Where a candidate is furthest from the reference. The marked token is the "
                     "one that the text goes on with; a dot stands for a space.",
                     body);
}

}  // namespace carat::audit::page
