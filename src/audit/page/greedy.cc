#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

struct Layout {
  double width, height, left;
  int ticks;
  const char* classes;
};
constexpr Layout kWide = {960, 300, 58, 9, "wide"};
constexpr Layout kNarrow = {320, 240, 46, 5, "narrow"};
constexpr double kTop = 10, kBottom = 46, kRight = 14;

double share_at_least(const GreedyText& g, int64_t tokens) {
  const auto n = std::count_if(g.first_differences.begin(), g.first_differences.end(),
                               [&](int64_t d) { return d >= tokens; });
  return static_cast<double>(n) / static_cast<double>(g.first_differences.size());
}

int64_t median(const GreedyText& g) {
  std::vector<int64_t> sorted = g.first_differences;
  std::sort(sorted.begin(), sorted.end());
  return sorted[(sorted.size() - 1) / 2];
}

std::string curves(const Section& section, const Layout& layout) {
  int64_t limit = 1;
  std::string description = "Share of greedy answers that are still the same. ";
  for (const Row& row : section.rows) {
    if (!row.greedy) continue;
    limit = std::max(limit, row.greedy->limit);
    description += fmt::format("{}: {} after {} tokens. ", row.model.name,
                               percent_text(share_at_least(*row.greedy, row.greedy->limit), 0),
                               row.greedy->limit);
  }
  Svg svg(layout.width, layout.height, description, layout.classes);
  const double ground = layout.height - kBottom;
  const Scale y = {.from = 0, .to = 1, .begin = ground, .end = kTop, .log = false};
  const Scale x = {.from = 0,
                   .to = static_cast<double>(limit),
                   .begin = layout.left,
                   .end = layout.width - kRight,
                   .log = false};
  for (const double v : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    svg.line(layout.left, y(v), layout.width - kRight, y(v), "grid2");
    svg.text(layout.left - 8, y(v) + 4, "end", "t", fmt::format("{:g} %", 100 * v));
  }
  for (const double v : round_values(0, static_cast<double>(limit), layout.ticks)) {
    svg.text(x(v), ground + 19, "middle", "t", fmt::format("{:g}", v));
  }
  svg.text(layout.width - kRight, layout.height - 6, "end", "t", "tokens of the answer \u2192");
  for (size_t i = section.rows.size(); i-- > 0;) {
    const auto& g = section.rows[i].greedy;
    if (!g) continue;
    std::string d = fmt::format("M{},{}", px(x(0)), px(y(1)));
    std::vector<int64_t> sorted = g->first_differences;
    std::sort(sorted.begin(), sorted.end());
    for (size_t k = 0; k < sorted.size() && sorted[k] < g->limit; ++k) {
      if (k + 1 < sorted.size() && sorted[k + 1] == sorted[k]) continue;
      const double share =
          static_cast<double>(sorted.size() - k - 1) / static_cast<double>(sorted.size());
      d += fmt::format("H{}V{}", px(x(static_cast<double>(sorted[k] + 1))), px(y(share)));
    }
    d += fmt::format("H{}", px(x(static_cast<double>(g->limit))));
    svg.open_group(fmt::format("style=\"{}\"", series_style(i, section.rows.size())));
    svg.path(d, "series", section.rows[i].model.name);
    svg.close_group();
  }
  return svg.done();
}

}  // namespace

std::string greedy_html(const Section& section) {
  std::string rows;
  size_t prompts = 0;
  for (size_t i = 0; i < section.rows.size(); ++i) {
    const auto& g = section.rows[i].greedy;
    if (!g) continue;
    prompts = std::max(prompts, g->first_differences.size());
    const int64_t middle = median(*g);
    rows += fmt::format(
        "<tr style=\"{}\"><th scope=\"row\"><span class=\"dot\"></span><bdi>{}</bdi></th>"
        "<td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        series_style(i, section.rows.size()), escape(section.rows[i].model.label),
        middle >= g->limit ? "none within " + count_text(g->limit) : count_text(middle),
        percent_text(share_at_least(*g, g->limit), 1));
  }
  if (rows.empty()) return {};
  return figure_html(
      "How long answers stay the same",
      fmt::format("Reference and candidate each continue {} with its most likely tokens. The "
                  "curve shows how many answers are still word for word the same.",
                  counted(static_cast<int64_t>(prompts), "prompt", "prompts")),
      curves(section, kWide) + curves(section, kNarrow) +
          "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Greedy answers\">"
          "<table><thead><tr><th scope=\"col\">candidate</th><th class=\"n\" scope=\"col\">same "
          "tokens, median</th><th class=\"n\" scope=\"col\">same to the end</th></tr></thead>"
          "<tbody>" +
          rows + "</tbody></table></div>");
}

}  // namespace carat::audit::page
