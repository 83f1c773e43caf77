#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "audit/page/html.h"
#include "audit/page/labels.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

struct Layout {
  double width, height, left, right, top, bottom, font;
  size_t name;  // characters of a name at most
  int x_ticks;
  const char* classes;
};
constexpr Layout kWide = {960, 470, 64, 20, 14, 52, 13.5, 34, 8, "wide"};
constexpr Layout kNarrow = {320, 370, 42, 6, 12, 46, 12, 20, 4, "narrow"};
constexpr double kZeroBand = 34;  // below the axis of a figure that has divergences of 0

class Scatter {
 public:
  Scatter(const Section& section, const Run& run, const Layout& layout)
      : section_(section),
        run_(run),
        layout_(layout),
        svg_(layout.width, layout.height, description(), layout.classes) {
    for (size_t i = 0; i < section.rows.size(); ++i) {
      const Row& row = section.rows[i];
      if (row.model.bytes > 0 && std::isfinite(row.mean_kld.value)) shown_.push_back(i);
    }
    set_scales();
  }

  std::string draw() {
    draw_axes();
    draw_floor();
    draw_front();
    draw_points();
    draw_names();
    return svg_.done();
  }

  // Candidates without room for a name, by their number.
  const std::vector<size_t>& unnamed() const { return unnamed_; }

 private:
  std::string description() const {
    std::string text = "Size against mean KLD. ";
    for (const Row& row : section_.rows) {
      text += fmt::format("{}: {}, {}{}. ", row.model.name,
                          bytes_text(static_cast<double>(row.model.bytes)),
                          nats_text(row.mean_kld.value), row.on_front ? ", on the front" : "");
    }
    return text;
  }

  void set_scales() {
    double low = 1e300, high = 0, least = 1e300, most = 0;
    for (const size_t i : shown_) {
      const Row& row = section_.rows[i];
      const auto size = static_cast<double>(row.model.bytes);
      least = std::min(least, size), most = std::max(most, size);
      has_zero_ |= row.mean_kld.value <= 0;
      for (const double v : {row.mean_kld.value, lower(row), upper(row)}) {
        if (v > 0 && std::isfinite(v)) low = std::min(low, v), high = std::max(high, v);
      }
    }
    if (high == 0) low = 1e-4, high = 1e-2;
    const double floor = run_.noise_kld.value_or(0);
    if (floor > 0 && std::isfinite(floor) && floor > low / 1000) low = std::min(low, floor);
    const double ground = layout_.height - layout_.bottom - (has_zero_ ? kZeroBand : 0);
    y_ = log_scale(low, high, ground, layout_.top);
    const double margin = most > least ? (most - least) * 0.08 : most * 0.25;
    x_ = {.from = std::max(0.0, least - margin),
          .to = most + 1.6 * margin,
          .begin = layout_.left,
          .end = layout_.width - layout_.right,
          .log = false};
    if (most > 8 * least) {
      x_.log = true;
      x_.from = least / 1.25;
      x_.to = most * 1.4;
    }
  }

  static double lower(const Row& row) {
    return row.mean_kld.interval ? row.mean_kld.interval->low : row.mean_kld.value;
  }
  static double upper(const Row& row) {
    return row.mean_kld.interval ? row.mean_kld.interval->high : row.mean_kld.value;
  }

  double ground() const { return layout_.height - layout_.bottom; }
  double zero_line() const { return ground() - 12; }
  double y_of(double kld) const {
    return kld > 0 ? std::clamp(y_(kld), y_.end, y_.begin) : has_zero_ ? zero_line() : y_.begin;
  }
  double x_of(const Row& row) const { return x_(static_cast<double>(row.model.bytes)); }

  void draw_axes() {
    const double right = layout_.width - layout_.right;
    for (const Tick& tick : log_ticks(y_, 6)) {
      svg_.line(layout_.left, y_(tick.value), right, y_(tick.value),
                tick.label.empty() ? "grid" : "grid2");
      if (!tick.label.empty()) {
        svg_.text(layout_.left - 8, y_(tick.value) + 4, "end", "t", tick.label);
      }
    }
    if (has_zero_) {
      svg_.line(layout_.left, zero_line(), right, zero_line(), "grid2");
      svg_.text(layout_.left - 8, zero_line() + 4, "end", "t", "0");
    }
    std::vector<double> sizes;
    if (x_.log) {
      for (const Tick& tick : log_ticks(x_, 6)) sizes.push_back(tick.value);
      while (static_cast<int>(sizes.size()) > layout_.x_ticks) {
        std::vector<double> half;
        for (size_t i = 0; i < sizes.size(); i += 2) half.push_back(sizes[i]);
        sizes = half;
      }
    } else {
      sizes = round_values(x_.from, x_.to, layout_.x_ticks);
    }
    double last = -1e9;
    for (const double size : sizes) {
      const double x = x_(size);
      svg_.line(x, ground(), x, ground() + 5, "axis");
      const double half = text_width(bytes_text(size), 12) / 2;
      if (x - half < last || x + half > layout_.width) continue;
      svg_.text(x, ground() + 20, "middle", "t", bytes_text(size));
      last = x + half + 6;
    }
    svg_.line(layout_.left, ground(), right, ground(), "axis");
    svg_.text(right, layout_.height - 8, "end", "t", "size of the files \u2192");
  }

  void draw_floor() {
    const double floor = run_.noise_kld.value_or(0);
    if (!(floor > 0) || !std::isfinite(floor) || floor < y_.from || floor > y_.to) return;
    svg_.line(layout_.left, y_(floor), layout_.width - layout_.right, y_(floor), "floor");
    svg_.text(layout_.width - layout_.right, y_(floor) - 6, "end", "t", "noise floor");
    taken_.push_back({layout_.width - layout_.right - 80, y_(floor) - 18, 80, 18});
  }

  // A stair: what the best candidate of at most a size loses.
  void draw_front() {
    std::vector<const Row*> front;
    for (const size_t i : shown_) {
      if (section_.rows[i].on_front) front.push_back(&section_.rows[i]);
    }
    if (front.empty()) return;
    std::sort(front.begin(), front.end(),
              [](const Row* a, const Row* b) { return a->model.bytes < b->model.bytes; });
    const double right = layout_.width - layout_.right;
    std::string d = fmt::format("M{},{}", px(x_of(*front[0])), px(layout_.top));
    double y = layout_.top;
    double x = x_of(*front[0]);
    const auto to = [&](double nx, double ny) {
      d += fmt::format("L{},{}", px(nx), px(ny));
      // Names keep off the line where it is flat; upright pieces are short or far from names.
      taken_.push_back(
          {std::min(x, nx), std::min(y, ny) - 1, std::abs(nx - x) + 1, std::abs(ny - y) + 2});
      x = nx, y = ny;
    };
    for (const Row* row : front) {
      to(x_of(*row), y);
      to(x, y_of(row->mean_kld.value));
    }
    to(right, y);
    svg_.path(d + fmt::format("L{},{}Z", px(right), px(layout_.top)), "beyond");
    svg_.path(d, "front");
  }

  void draw_points() {
    for (const size_t i : shown_) {
      const Row& row = section_.rows[i];
      svg_.open_group(fmt::format("style=\"{}\"", series_style(i, section_.rows.size())));
      const double x = x_of(row), y = y_of(row.mean_kld.value);
      if (row.mean_kld.interval && std::isfinite(upper(row))) {
        const double top = y_of(upper(row)), bottom = y_of(lower(row));
        svg_.path(fmt::format("M{},{}V{}M{},{}h8M{},{}h8", px(x), px(top), px(bottom), px(x - 4),
                              px(top), px(x - 4), px(bottom)),
                  "whisker");
        taken_.push_back({x - 4, top, 8, bottom - top});
      }
      const std::string interval = interval_text(row.mean_kld);
      svg_.circle(x, y, 6, row.on_front ? "point" : "off",
                  fmt::format("{}: {}, mean KLD {}{}", row.model.name,
                              bytes_text(static_cast<double>(row.model.bytes)),
                              nats_text(row.mean_kld.value),
                              interval.empty() ? "" : " (" + interval + ")"));
      svg_.close_group();
    }
  }

  void draw_names() {
    std::vector<size_t> order = shown_;
    std::stable_partition(order.begin(), order.end(),
                          [&](size_t i) { return section_.rows[i].on_front; });
    std::vector<Point> points;
    for (const size_t i : order) {
      const Row& row = section_.rows[i];
      points.push_back(
          {x_of(row), y_of(row.mean_kld.value), shortened(row.model.label, layout_.name)});
    }
    const Box frame = {layout_.left, 2, layout_.width - layout_.left - 2, ground() - 3};
    const auto labels = place_labels(points, frame, taken_, layout_.font);
    for (size_t i = 0; i < points.size(); ++i) {
      if (!labels[i]) {
        unnamed_.push_back(order[i]);
        svg_.text(points[i].x, points[i].y - 9, "middle", "name", std::to_string(order[i] + 1));
        continue;
      }
      const Label& label = *labels[i];
      if (label.leader) draw_leader(points[i], label.box);
      svg_.text(label.x, label.baseline, label.anchor,
                section_.rows[order[i]].on_front ? "name" : "name dim", points[i].name,
                fmt::format("style=\"font-size:{}px\"", layout_.font));
    }
  }

  void draw_leader(const Point& p, const Box& box) {
    const double x = std::clamp(p.x, box.x, box.x + box.width);
    const double y = std::clamp(p.y, box.y, box.y + box.height);
    const double length = std::hypot(x - p.x, y - p.y);
    if (length < 10) return;
    const double f = 8 / length;
    svg_.line(p.x + f * (x - p.x), p.y + f * (y - p.y), x, y, "leader");
  }

  const Section& section_;
  const Run& run_;
  const Layout& layout_;
  Svg svg_;
  Scale x_, y_;
  bool has_zero_ = false;
  std::vector<size_t> shown_, unnamed_;
  std::vector<Box> taken_;
};

}  // namespace

std::string scatter_html(const Section& section, const Run& run) {
  const auto sized = std::count_if(section.rows.begin(), section.rows.end(), [](const Row& row) {
    return row.model.bytes > 0 && std::isfinite(row.mean_kld.value);
  });
  if (sized < 2) return {};  // nothing to weigh
  Scatter wide(section, run, kWide), narrow(section, run, kNarrow);
  std::string body = wide.draw() + narrow.draw();
  std::string below;
  for (const size_t i : narrow.unnamed()) {
    below += fmt::format("{}{}\u00a0{}", below.empty() ? "" : ", ", i + 1,
                         escape(section.rows[i].model.label));
  }
  if (!below.empty()) below = fmt::format("<p class=\"below narrow-only\">{}</p>", below);
  std::string absent;
  for (const Row& row : section.rows) {
    if (row.model.bytes > 0 && std::isfinite(row.mean_kld.value)) continue;
    absent += (absent.empty() ? "" : ", ") + escape(row.model.label);
  }
  if (!absent.empty()) {
    below +=
        "<p class=\"below\">Not drawn, for want of a size or of a finite KLD: " + absent + ".</p>";
  }
  return figure_html(
      "What a byte buys",
      "Size against mean KLD, on a logarithmic axis; lower and further left is better. The line "
      "is the front: filled points on it have no rival that is both smaller and closer. Bars are "
      "95&nbsp;% intervals.",
      body + below);
}

}  // namespace carat::audit::page
