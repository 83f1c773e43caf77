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

constexpr double kWidth = 262, kHeight = 196, kLeft = 46, kRight = 6, kTop = 8, kBottom = 28;
constexpr size_t kMostWhiskers = 5;  // candidates; more would cover each other

enum class What { kKld, kFlips };

Figure value_of(const BinText& bin, What what) {
  if (what == What::kKld) return bin.mean_kld;
  Figure f{.value = 1 - bin.top1_agreement.value, .interval = std::nullopt};
  if (const auto& i = bin.top1_agreement.interval) f.interval = Interval{1 - i->high, 1 - i->low};
  return f;
}

// One axis for all panels of a kind, so that they can be compared.
Scale value_scale(const Section& section, What what) {
  double low = 1e300, high = 0;
  for (const Row& row : section.rows) {
    for (const Axis& axis : row.axes) {
      for (const BinText& bin : axis.bins) {
        const Figure f = value_of(bin, what);
        if (!(f.value > 0) || !std::isfinite(f.value)) continue;
        low = std::min(low, f.value);
        high = std::max(high, f.value);
        const bool whiskers = section.rows.size() <= kMostWhiskers;
        if (whiskers && f.interval && std::isfinite(f.interval->high)) {
          high = std::max(high, f.interval->high);
        }
      }
    }
  }
  const double ground = kHeight - kBottom;
  if (what == What::kFlips) {
    return {
        .from = 0, .to = high > 0 ? high * 1.08 : 0.1, .begin = ground, .end = kTop, .log = false};
  }
  if (high == 0) low = 1e-4, high = 1e-2;
  return log_scale(std::max(low, high * 1e-8), high, ground, kTop);
}

class Panel {
 public:
  Panel(const Section& section, size_t axis, What what, const Scale& scale)
      : section_(section),
        axis_(axis),
        what_(what),
        y_(scale),
        svg_(kWidth, kHeight, description(), "") {
    for (const Row& row : section.rows) {
      for (const BinText& bin : row.axes[axis].bins) {
        if (std::find(names_.begin(), names_.end(), bin.name) == names_.end()) {
          names_.push_back(bin.name);
        }
      }
    }
  }

  std::string draw() {
    draw_axes();
    for (size_t i = section_.rows.size(); i-- > 0;) draw_row(i);
    return svg_.done();
  }

 private:
  std::string text_of(double v) const {
    return what_ == What::kKld ? nats_text(v) : percent_text(v, 1);
  }

  std::string description() const {
    const Axis& axis = section_.rows.front().axes[axis_];
    std::string text =
        (what_ == What::kKld ? "Mean KLD by " : "Changed first choices by ") + axis.about + ". ";
    for (const Row& row : section_.rows) {
      text += row.model.name + ":";
      for (const BinText& bin : row.axes[axis_].bins) {
        text += fmt::format(" {} {};", bin.name, text_of(value_of(bin, what_).value));
      }
      text += " ";
    }
    return text;
  }

  double band() const {
    return (kWidth - kLeft - kRight) / static_cast<double>(std::max<size_t>(names_.size(), 1));
  }
  double x_of(const std::string& name) const {
    const auto at = std::find(names_.begin(), names_.end(), name) - names_.begin();
    return kLeft + band() * (static_cast<double>(at) + 0.5);
  }

  void draw_axes() {
    const auto level = [&](double v, const std::string& label) {
      svg_.line(kLeft, y_(v), kWidth - kRight, y_(v), label.empty() ? "grid" : "grid2");
      if (!label.empty()) svg_.text(kLeft - 7, y_(v) + 4, "end", "t", label);
    };
    if (what_ == What::kKld) {
      for (const Tick& tick : log_ticks(y_, 4)) level(tick.value, tick.label);
    } else {
      for (const double v : round_values(0, y_.to, 4)) {
        level(v, fmt::format("{:g} %", 100 * v));
      }
    }
    double last = -1e9;
    for (const std::string& name : names_) {
      // Of doubled positions the lower ends are enough.
      std::string label = name;
      if (names_.size() > 4) label = name.substr(0, name.find("\u2013"));
      label = first_characters(label, 12);
      const double half = text_width(label, 12) / 2;
      const double x = std::clamp(x_of(name), half, kWidth - half);
      if (x - half < last) continue;
      svg_.text(x, kHeight - 9, "middle", "t", label);
      last = x + half + 4;
    }
  }

  // Beside each other where bins stand apart, a little even where lines join them.
  double shift(size_t i) const {
    if (section_.rows.size() < 2) return 0;
    const double width = std::min(band() * 0.5, 5.0 * static_cast<double>(section_.rows.size()));
    return width * (static_cast<double>(i) / static_cast<double>(section_.rows.size() - 1) - 0.5);
  }

  void draw_row(size_t i) {
    const Row& row = section_.rows[i];
    const Axis& axis = row.axes[axis_];
    svg_.open_group(fmt::format("style=\"{}\"", series_style(i, section_.rows.size())));
    std::string line;
    for (const BinText& bin : axis.bins) {
      const Figure f = value_of(bin, what_);
      if (!std::isfinite(f.value)) continue;
      line += fmt::format("{}{},{}", line.empty() ? "M" : "L", px(x_of(bin.name) + shift(i)),
                          px(y_of(f.value)));
    }
    if (axis.ordered && axis.bins.size() > 1 && !line.empty()) svg_.path(line, "series");
    for (const BinText& bin : axis.bins) draw_bin(bin, row, x_of(bin.name) + shift(i));
    svg_.close_group();
  }

  double y_of(double v) const {
    return y_.log ? (v > 0 ? std::clamp(y_(v), kTop, y_.begin) : y_.begin) : y_(v);
  }

  void draw_bin(const BinText& bin, const Row& row, double x) {
    const Figure f = value_of(bin, what_);
    if (!std::isfinite(f.value)) return;
    if (f.interval && section_.rows.size() <= kMostWhiskers && std::isfinite(f.interval->high)) {
      svg_.line(x, y_of(std::max(f.interval->low, 0.0)), x, y_of(f.interval->high), "whisker");
    }
    const std::string interval = what_ == What::kKld ? interval_text(f) : interval_percent_text(f);
    svg_.circle(x, y_of(f.value), section_.rows.size() > 6 ? 2.6 : 3.6, "fill",
                fmt::format("{}, {}: {}{} ({} tokens)", row.model.name, bin.name, text_of(f.value),
                            interval.empty() ? "" : ", " + interval, count_text(bin.tokens)));
  }

  const Section& section_;
  size_t axis_;
  What what_;
  Scale y_;
  Svg svg_;
  std::vector<std::string> names_;
};

bool has_bins(const Section& section, size_t axis) {
  size_t most = 0;
  for (const Row& row : section.rows) most = std::max(most, row.axes[axis].bins.size());
  return most > 1;
}

std::string panels_html(const Section& section, What what) {
  const Scale scale = value_scale(section, what);
  std::string html;
  for (size_t axis = 0; axis < kAxisCount; ++axis) {
    if (!has_bins(section, axis)) continue;
    const Axis& first = section.rows.front().axes[axis];
    html += fmt::format("<div><h4>{}</h4><p>{}</p>{}</div>\n", first.title, first.about,
                        Panel(section, axis, what, scale).draw());
  }
  return html.empty() ? html : "<div class=\"panels\">" + html + "</div>";
}

}  // namespace

std::string breakdowns_html(const Section& section) {
  const std::string klds = panels_html(section, What::kKld);
  if (klds.empty()) return {};
  return figure_html("Where it is lost",
                     "Mean KLD of the tokens in each bin, on one logarithmic axis for all panels.",
                     legend_html(section) + klds) +
         figure_html("Where the first choice changes",
                     "Share of tokens for which the most likely one is another. A change where "
                     "the reference was sure weighs most.",
                     legend_html(section) + panels_html(section, What::kFlips));
}

}  // namespace carat::audit::page
