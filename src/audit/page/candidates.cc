#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

constexpr double kBarWidth = 84;

// One axis for the bars of all rows.
Scale bar_scale(const Section& section) {
  double low = 1e300, high = 0;
  for (const Row& row : section.rows) {
    const Figure& f = row.mean_kld;
    for (const double v : {f.value, f.interval ? f.interval->low : f.value,
                           f.interval ? f.interval->high : f.value}) {
      if (v > 0 && std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
    }
  }
  if (high == 0) low = 1e-3, high = 1e-1;
  return log_scale(low, high, 8, kBarWidth - 8);
}

std::string bar(const Row& row, const Scale& scale) {
  const double kld = row.mean_kld.value;
  const double x = kld > 0 && std::isfinite(kld) ? scale(kld) : kld > 0 ? scale.end : 2;
  Svg svg(kBarWidth, 22, "mean KLD " + nats_text(kld) + " " + interval_text(row.mean_kld), "");
  svg.line(0, 11, kBarWidth, 11, "grid2");
  const auto& interval = row.mean_kld.interval;
  if (interval && interval->low > 0 && std::isfinite(interval->high)) {
    const double low = scale(interval->low), high = scale(interval->high);
    svg.rect({low, 7, std::max(high - low, 2.0), 8}, "pale", {}, "rx=\"2\"");
  }
  svg.circle(x, 11, 4.5, row.on_front ? "point" : "off");
  return svg.done();
}

std::string cell(const std::string& text, const std::string& interval = {}) {
  return fmt::format("<td class=\"n\">{}{}</td>", text,
                     interval.empty() ? "" : "<small>" + interval + "</small>");
}

std::string row_html(const Row& row, size_t rank, size_t rows, const Scale& scale, bool show_kv) {
  std::string html = fmt::format(
      "<tr style=\"{}\"><th scope=\"row\"><span class=\"rank\">{}</span><span class=\"dot{}\">"
      "</span><bdi>{}</bdi>",
      series_style(rank, rows), rank + 1, row.on_front ? "" : " off", escape(row.model.name));
  for (const std::string& more : {row.model.what, show_kv ? "K/V " + row.model.kv : ""}) {
    if (!more.empty()) html += " <span class=\"chip\">" + escape(shortened(more, 40)) + "</span>";
  }
  html += "</th>";
  const double bits = row.model.bits_per_weight;
  html += cell(row.model.bytes > 0 ? bytes_text(static_cast<double>(row.model.bytes)) : "\u2013",
               bits > 0 ? fixed_text(bits, 2) + " bits" : "");
  html += cell("<b>" + nats_text(row.mean_kld.value) + "</b>", interval_text(row.mean_kld));
  html += "<td class=\"bar\">" + bar(row, scale) + "</td>";
  for (const Figure* f : {&row.median_kld, &row.p99_kld, &row.p999_kld}) {
    html += cell(nats_text(f->value));
  }
  html += cell(nats_text(row.max_kld));
  html += cell(percent_text(row.top1_agreement.value), interval_percent_text(row.top1_agreement));
  html += cell(percent_text(row.top5_agreement.value));
  html +=
      cell(fixed_text(row.perplexity_ratio.value, 4), interval_fixed_text(row.perplexity_ratio, 4));
  html += cell(percent_text(row.rms_delta_p.value));
  return html + "</tr>\n";
}

}  // namespace

std::string legend_html(const Section& section) {
  if (section.rows.size() < 2) return {};
  std::string html = "<ul class=\"legend\">";
  for (size_t i = 0; i < section.rows.size(); ++i) {
    html += fmt::format("<li style=\"{}\"><span class=\"dot\"></span><bdi>{}</bdi></li>",
                        series_style(i, section.rows.size()),
                        escape(shortened(section.rows[i].model.label, 40)));
  }
  return html + "</ul>";
}

std::string figure_html(const std::string& title, const std::string& about, const std::string& body,
                        const std::string& classes) {
  return fmt::format("<figure{}><figcaption><h3>{}</h3><p>{}</p></figcaption>\n{}</figure>\n",
                     classes.empty() ? "" : " class=\"" + classes + "\"", title, about, body);
}

std::string candidates_html(const Section& section) {
  static constexpr const char* kColumns[] = {"size,<br>bits a weight",
                                             "mean KLD,<br>nats",
                                             nullptr,
                                             "median",
                                             "p99",
                                             "p99.9",
                                             "max",
                                             "same<br>top\u20111",
                                             "same<br>top\u20115",
                                             "perplexity<br>ratio",
                                             "RMS \u0394p"};
  std::string html =
      "<div class=\"card\"><h3>All figures</h3><p class=\"lead\">Closest first. Small print: "
      "95&nbsp;% intervals.</p><div class=\"scroll\" tabindex=\"0\" role=\"region\" "
      "aria-label=\"Table of candidates\"><table class=\"main\"><thead><tr><th "
      "scope=\"col\">candidate</th>";
  for (const char* column : kColumns) {
    html += column == nullptr
                ? "<th class=\"bar\" scope=\"col\"><span class=\"soft\">log scale</span></th>"
                : fmt::format("<th class=\"n\" scope=\"col\">{}</th>", column);
  }
  html += "</tr></thead><tbody>\n";
  const Scale scale = bar_scale(section);
  const bool show_kv = std::any_of(section.rows.begin(), section.rows.end(), [&](const Row& row) {
    return row.model.kv != section.rows.front().model.kv;
  });
  for (size_t i = 0; i < section.rows.size(); ++i) {
    html += row_html(section.rows[i], i, section.rows.size(), scale, show_kv);
  }
  return html + "</tbody></table></div></div>\n";
}

}  // namespace carat::audit::page
