#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

struct Layout {
  double width, left, row, bars;  // pixels; `bars` of a row's height are for the bars
  int ticks;
  size_t name;
  const char* classes;
};
constexpr Layout kWide = {960, 210, 62, 46, 10, 24, "wide"};
constexpr Layout kNarrow = {320, 6, 76, 44, 5, 38, "narrow"};
constexpr double kZero = 26;  // pixels of the bar of what lies below the axis

// What the axis of all rows has to hold.
struct Range {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  double most = 0;  // largest share of a bar
  void take(double v) {
    if (v > 0 && std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
  }
};

int64_t total(const Row& row) {
  int64_t n = 0;
  for (const HistogramBar& bar : row.histogram) n += bar.tokens;
  return std::max<int64_t>(n, 1);
}

double share(const Row& row, const HistogramBar& bar) {
  return static_cast<double>(bar.tokens) / static_cast<double>(total(row));
}

Range range_of(const Section& section) {
  Range range;
  for (const Row& row : section.rows) {
    for (const HistogramBar& bar : row.histogram) {
      if (bar.tokens == 0) continue;
      range.most = std::max(range.most, share(row, bar));
      if (bar.from > 0) range.take(bar.from), range.take(bar.to);
    }
    for (const double v : {row.median_kld.value, row.mean_kld.value, row.p99_kld.value,
                           row.p999_kld.value, row.max_kld}) {
      range.take(v);
    }
  }
  if (range.high == 0) range.low = 1e-8, range.high = 1;
  range.low = std::max(range.low, range.high * 1e-12);
  return range;
}

class Distribution {
 public:
  Distribution(const Section& section, const Layout& layout)
      : section_(section),
        layout_(layout),
        range_(range_of(section)),
        height_(layout.row * static_cast<double>(section.rows.size()) + 44),
        svg_(layout.width, height_, description(), layout.classes) {
    x_ = {.from = std::pow(10, std::floor(std::log10(range_.low) + 1e-9)),
          .to = range_.high * 1.05,
          .begin = layout.left + kZero + 22,
          .end = layout.width - 8,
          .log = true};
  }

  std::string draw() {
    const double ground = height_ - 40;
    for (const Tick& tick : log_ticks(x_, layout_.ticks)) {
      if (tick.label.empty()) continue;
      svg_.line(x_(tick.value), 4, x_(tick.value), ground + 4, "grid");
      svg_.text(x_(tick.value), ground + 19, "middle", "t", tick.label);
    }
    svg_.text(layout_.left + kZero / 2, ground + 19, "middle", "t", "0");
    svg_.text(layout_.width - 8, height_ - 4, "end", "t", "KLD of a token, nats \u2192");
    for (size_t i = 0; i < section_.rows.size(); ++i) draw_row(i);
    return svg_.done();
  }

 private:
  std::string description() const {
    std::string text = "How often which KLD occurs. ";
    for (const Row& row : section_.rows) {
      text += fmt::format("{}: median {}, 99 % below {}. ", row.model.name,
                          nats_text(row.median_kld.value), nats_text(row.p99_kld.value));
    }
    return text;
  }

  void draw_row(size_t i) {
    const Row& row = section_.rows[i];
    const double ground = layout_.row * static_cast<double>(i + 1) - 2;
    svg_.open_group(fmt::format("style=\"{}\"", series_style(i, section_.rows.size())));
    const std::string name = shortened(row.model.label, layout_.name);
    if (layout_.left > 100) {
      svg_.text(layout_.left - 16, ground - 16, "end", "", name);
      svg_.text(layout_.left - 16, ground - 1, "end", "t", "mean " + nats_text(row.mean_kld.value));
    } else {
      svg_.text(layout_.left, ground - layout_.bars - 10, "start", "", name);
    }
    for (const HistogramBar& bar : row.histogram) {
      if (bar.tokens > 0) draw_bar(row, bar, ground);
    }
    svg_.line(layout_.left, ground, layout_.width - 8, ground, "axis");
    mark(row.p999_kld.value, ground, 9);
    mark(row.p99_kld.value, ground, 15);
    if (row.median_kld.value > 0 && std::isfinite(row.median_kld.value)) {
      svg_.circle(x_(std::max(row.median_kld.value, x_.from)), ground, 4.5, "point",
                  "median " + nats_text(row.median_kld.value));
    }
    if (std::isfinite(row.mean_kld.value) && row.mean_kld.value > 0) {
      const double x = x_(std::max(row.mean_kld.value, x_.from));
      svg_.path(fmt::format("M{},{}l5,5l-5,5l-5,-5Z", px(x), px(ground - 5)), "off",
                "mean " + nats_text(row.mean_kld.value));
    }
    svg_.close_group();
  }

  void draw_bar(const Row& row, const HistogramBar& bar, double ground) {
    const double part = share(row, bar);
    const double height = std::max(1.0, layout_.bars * part / range_.most);
    Box box{layout_.left, ground - height, kZero, height};
    if (bar.from > 0) {
      box.x = x_(std::max(bar.from, x_.from)) + 0.5;
      box.width = std::max(1.0, x_(std::isfinite(bar.to) ? bar.to : x_.to) - box.x - 0.5);
    }
    svg_.rect(box, "pale",
              fmt::format("{} to {}: {} of the tokens", nats_text(bar.from), nats_text(bar.to),
                          percent_text(part)));
  }

  void mark(double value, double ground, double height) {
    if (!(value > 0) || !std::isfinite(value)) return;
    const double x = x_(std::max(value, x_.from));
    svg_.line(x, ground, x, ground - height, "curve");
  }

  const Section& section_;
  const Layout& layout_;
  Range range_;
  double height_;
  Svg svg_;
  Scale x_;
};

}  // namespace

std::string distribution_html(const Section& section) {
  const bool any = std::any_of(section.rows.begin(), section.rows.end(), [](const Row& row) {
    return !row.histogram.empty() || std::isfinite(row.median_kld.value);
  });
  if (!any) return {};
  return figure_html(
      "How the loss is spread",
      "How often which KLD occurs, on a logarithmic axis; at its left, what is 0 or close to it. "
      "Dot: median. Diamond: mean. Tall line: 99&nbsp;% of the tokens lie left of it; short line: "
      "99.9&nbsp;%.",
      Distribution(section, kWide).draw() + Distribution(section, kNarrow).draw());
}

}  // namespace carat::audit::page
