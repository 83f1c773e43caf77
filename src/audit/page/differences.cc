#include "audit/page/differences.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

constexpr double kWidth = 400, kHeight = 36, kMargin = 26, kFont = 12;

bool is_finite(const Figure& f) {
  return std::isfinite(f.value) &&
         (!f.interval || (std::isfinite(f.interval->low) && std::isfinite(f.interval->high)));
}

PairText reversed(PairText pair) {
  std::swap(pair.baseline, pair.candidate);
  pair.mean_kld = negated(pair.mean_kld);
  pair.kld_ratio = inverted(pair.kld_ratio);
  pair.top1_agreement = negated(pair.top1_agreement);
  pair.perplexity_ratio = inverted(pair.perplexity_ratio);
  return pair;
}

// Of those that a document has measured together.
struct Shown {
  size_t row;  // of the section
  PairText pair;
};

std::vector<Shown> pairs_with_closest(const Section& section, std::span<const Run> runs) {
  std::vector<Shown> shown;
  for (size_t i = 1; i < section.rows.size(); ++i) {
    if (auto pair = beside(section.rows[i], section.rows[0], runs)) {
      shown.push_back({i, std::move(*pair)});
    }
  }
  return shown;
}

std::string axis(const SignedScale& scale, std::span<const Tick> ticks) {
  Svg svg(kWidth, 18, "Further than the closest, nats a token", "");
  for (const Tick& tick : ticks) svg.text(scale(tick.value), 13, "middle", "t", tick.label);
  return svg.done();
}

std::string plot(const Figure& f, bool filled, const SignedScale& scale,
                 std::span<const Tick> ticks) {
  const std::string interval = interval_text(f);
  Svg svg(kWidth, kHeight,
          "further by " + nats_text(f.value) + (interval.empty() ? "" : " (" + interval + ")"), "");
  const double middle = kHeight / 2;
  for (const Tick& tick : ticks) {
    svg.line(scale(tick.value), 0, scale(tick.value), kHeight, tick.value == 0 ? "zero" : "grid");
  }
  // The ends lie on the dot where the interval is narrower.
  const double low = f.interval ? scale(f.interval->low) : 0;
  const double high = f.interval ? scale(f.interval->high) : 0;
  if (f.interval)
    svg.rect({low, middle - 6, std::max(high - low, 2.0), 12}, "pale", {}, "rx=\"2\"");
  svg.circle(scale(f.value), middle, 4.5, filled ? "point" : "off");
  if (f.interval) {
    const std::string up = px(middle - 9), down = px(middle + 9);
    svg.path(fmt::format("M{},{}V{}M{},{}V{}", px(low), up, down, px(high), up, down), "whisker");
  }
  return svg.done();
}

// Three or four digits that matter, and the interval with as many decimals.
std::string times_html(const Figure& f) {
  if (!is_finite(f)) return "\u2013";
  const int digits = f.value < 10 ? 3 : f.value < 100 ? 2 : f.value < 1000 ? 1 : 0;
  const std::string interval = interval_fixed_text(f, digits);
  return fixed_text(f.value, digits) + "\u00d7" +
         (interval.empty() ? "" : "<small>" + interval + "</small>");
}

std::string points_html(const Figure& share) {
  Figure points{.value = 100 * share.value, .interval = std::nullopt};
  if (share.interval) points.interval = {100 * share.interval->low, 100 * share.interval->high};
  const std::string interval = interval_fixed_text(points, 2);
  return fixed_text(points.value, 2) + (interval.empty() ? "" : "<small>" + interval + "</small>");
}

std::string nats_html(const Figure& f) {
  const std::string interval = interval_text(f);
  return "<b>" + nats_text(f.value) + "</b>" +
         (interval.empty() ? "" : "<small>" + interval + "</small>");
}

std::string verdict_html(const std::optional<bool>& apart) {
  if (!apart) return "<span class=\"chip\">unknown</span>";
  return *apart ? "<span class=\"chip role\">apart</span>"
                : "<span class=\"chip\">not apart</span>";
}

std::string row_html(const Section& section, size_t i, const std::string& plot,
                     const std::string& verdict, const PairText* pair) {
  std::string html = fmt::format(
      "<tr style=\"{}\"><th scope=\"row\"><span class=\"rank\">{}</span><bdi>{}</bdi></th>"
      "<td class=\"verdict-cell\">{}</td><td class=\"plot\">{}</td>",
      series_style(i, section.rows.size()), i + 1, escape(section.rows[i].model.label), verdict,
      plot);
  const auto cell = [&](const char* classes, const std::string& text) {
    html += fmt::format("<td class=\"n{}\">{}</td>", classes, text);
  };
  cell(" nats", pair ? nats_html(pair->mean_kld) : "");
  cell(" times", pair ? times_html(pair->kld_ratio) : "");
  cell(" more", pair ? points_html(pair->top1_agreement) : "");
  cell(" more", pair && is_finite(pair->perplexity_ratio)
                    ? fixed_text(pair->perplexity_ratio.value, 4) + "<small>" +
                          interval_fixed_text(pair->perplexity_ratio, 4) + "</small>"
                    : "");
  return html + "</tr>\n";
}

std::string names_of(const Row& a, const Row& b) {
  return "<bdi>" + escape(shortened(a.model.label, 40)) + "</bdi> and <bdi>" +
         escape(shortened(b.model.label, 40)) + "</bdi>";
}

// Whether the order of the table is certain, from one candidate to the next.
std::string order_html(const Section& section, std::span<const Run> runs) {
  std::string undecided;
  size_t known = 0;
  for (size_t i = 0; i + 1 < section.rows.size(); ++i) {
    const auto pair = beside(section.rows[i + 1], section.rows[i], runs);
    const std::optional<bool> decided = pair ? excludes_zero(pair->mean_kld) : std::nullopt;
    if (!decided) continue;
    ++known;
    if (*decided) continue;
    undecided += (undecided.empty() ? "" : "; ") + names_of(section.rows[i], section.rows[i + 1]);
  }
  std::string text;
  if (!undecided.empty()) {
    text = "Neighbours in this order that are not apart: " + undecided + ".";
  } else if (known > 1 && known + 1 == section.rows.size()) {
    text = "Each is apart from the next one in this order, too.";
  }
  return text.empty() ? text : "<p class=\"below\">" + text + "</p>";
}

std::string absent_html(const Section& section, std::span<const Shown> shown) {
  std::string absent;
  for (size_t i = 1; i < section.rows.size(); ++i) {
    if (std::any_of(shown.begin(), shown.end(), [&](const Shown& s) { return s.row == i; })) {
      continue;
    }
    absent += (absent.empty() ? "" : ", ") + escape(shortened(section.rows[i].model.label, 40));
  }
  if (absent.empty()) return {};
  return "<p class=\"below\">Not measured together with the closest in one audit, or infinitely "
         "far: " +
         absent + ".</p>";
}

}  // namespace

std::optional<PairText> beside(const Row& row, const Row& baseline, std::span<const Run> runs) {
  for (const Place& a : row.places) {
    for (const Place& b : baseline.places) {
      if (a.source != b.source || a.reference != b.reference) continue;
      for (const PairText& pair : runs[a.source].pairs) {
        if (pair.reference != a.reference || !is_finite(pair.mean_kld)) continue;
        if (pair.candidate == a.candidate && pair.baseline == b.candidate) return pair;
        if (pair.candidate == b.candidate && pair.baseline == a.candidate) return reversed(pair);
      }
    }
  }
  return std::nullopt;
}

double SignedScale::operator()(double value) const {
  const auto place = [&](double v) { return std::asinh(v / unit); };
  const double width = place(to) - place(from);
  const double share = width > 0 ? (place(value) - place(from)) / width : 0;
  return begin + std::clamp(share, 0.0, 1.0) * (end - begin);
}

SignedScale signed_scale(std::span<const Figure> figures, double begin, double end) {
  SignedScale scale{.from = 0, .to = 0, .unit = 0, .begin = begin, .end = end};
  double narrowest = 1e300;
  for (const Figure& f : figures) {
    const Interval i = f.interval.value_or(Interval{f.value, f.value});
    scale.from = std::min({scale.from, f.value, i.low});
    scale.to = std::max({scale.to, f.value, i.high});
    if (i.high > i.low) narrowest = std::min(narrowest, (i.high - i.low) / 2);
  }
  const double size = std::max(scale.to, -scale.from);
  if (size == 0) {
    scale.to = scale.unit = 1;
    return scale;
  }
  scale.unit = std::clamp(narrowest, size / 1e4, size);
  return scale;
}

std::vector<Tick> signed_ticks(const SignedScale& scale, double font) {
  std::vector<Tick> ticks;
  std::vector<Box> taken;
  const auto add = [&](double value) {
    if (value < scale.from || value > scale.to) return;
    const double size = std::abs(value);
    std::string label =
        size == 0 || (size > 0.9e-4 && size < 1e5) ? fmt::format("{:g}", size) : nats_text(size);
    if (value < 0) label.insert(0, "\u2212");
    const double width = text_width(label, font) + font;
    const Box box = {scale(value) - width / 2, 0, width, 1};
    if (std::any_of(taken.begin(), taken.end(), [&](const Box& b) { return b.meets(box); })) return;
    taken.push_back(box);
    ticks.push_back({value, label});
  };
  add(0);
  const double size = std::max(scale.to, -scale.from);
  const int high = static_cast<int>(std::floor(std::log10(size)));
  const int low = static_cast<int>(std::floor(std::log10(scale.unit))) - 1;
  for (const double m : {1.0, 5.0, 2.0}) {
    for (int p = high; p >= low; --p) {
      for (const double sign : {1.0, -1.0}) add(sign * m * std::pow(10.0, p));
    }
  }
  return ticks;
}

std::string differences_html(const Section& section, std::span<const Run> runs) {
  const std::vector<Shown> shown = pairs_with_closest(section, runs);
  if (shown.empty()) return {};
  std::vector<Figure> figures;
  for (const Shown& s : shown) figures.push_back(s.pair.mean_kld);
  const SignedScale scale = signed_scale(figures, kMargin, kWidth - kMargin);
  const std::vector<Tick> ticks = signed_ticks(scale, kFont);
  std::string html =
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Differences\"><table "
      "class=\"pairs\"><thead><tr><th scope=\"col\">candidate</th><th class=\"verdict-cell\" "
      "scope=\"col\"></th><th class=\"plot\" scope=\"col\">" +
      axis(scale, ticks) +
      "</th><th class=\"n nats\" scope=\"col\">further by,<br> nats</th><th class=\"n times\" "
      "scope=\"col\">times the<br> closest&#39;s</th><th class=\"n more\" scope=\"col\">same "
      "top\u20111,<br>points</th><th class=\"n more\" scope=\"col\">perplexity<br>ratio</th>"
      "</tr></thead><tbody>\n";
  html += row_html(section, 0, plot({}, true, scale, ticks), "<span class=\"chip\">closest</span>",
                   nullptr);
  for (const Shown& s : shown) {
    const std::optional<bool> decided = excludes_zero(s.pair.mean_kld);
    html += row_html(section, s.row, plot(s.pair.mean_kld, decided == true, scale, ticks),
                     verdict_html(decided), &s.pair);
  }
  html += "</tbody></table></div>";
  return figure_html(
      "Which differences are certain",
      fmt::format(
          "How much further from the reference than <bdi>{}</bdi> each candidate is. Both are "
          "drawn "
          "with the same chunks of text, so that what is hard for both does not count: where the "
          "intervals above overlap, these decide. One that holds 0 cannot tell the two apart. The "
          "axis is stretched near 0.",
          escape(shortened(section.rows[0].model.label, 40))),
      html + order_html(section, runs) + absent_html(section, shown));
}

}  // namespace carat::audit::page
