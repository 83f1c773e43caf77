#include "audit/page/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "audit/page/html.h"
#include "base/error.h"
#include "base/utf8.h"

namespace carat::audit::page {
namespace {

std::string class_of(const std::string& classes) {
  return classes.empty() ? "" : fmt::format(" class=\"{}\"", classes);
}

// The end of an element that may have a title.
std::string close(const std::string& tag, std::string_view title) {
  if (title.empty()) return "/>";
  return "><title>" + escape(title) + "</title></" + tag + ">";
}

std::string decimal_text(double value) {
  return value >= 1e-4 && value < 1e5 ? fmt::format("{:g}", value) : nats_text(value);
}

}  // namespace

double Scale::operator()(double value) const {
  const auto place = [&](double v) { return log ? std::log10(v) : v; };
  const double width = place(to) - place(from);
  const double share = width > 0 ? (place(value) - place(from)) / width : 0.5;
  return begin + std::clamp(share, -0.5, 1.5) * (end - begin);
}

std::vector<Tick> log_ticks(const Scale& scale, int most) {
  std::vector<Tick> ticks;
  const int low = static_cast<int>(std::ceil(std::log10(scale.from) - 1e-9));
  const int high = static_cast<int>(std::floor(std::log10(scale.to) + 1e-9));
  const bool few = high - low < 2;
  const int step = std::max(1, (high - low + most) / std::max(most, 1));
  for (int p = low - 1; p <= high; ++p) {
    for (const double m : {1.0, 2.0, 5.0}) {
      const double value = m * std::pow(10.0, p);
      if (value < scale.from * (1 - 1e-9) || value > scale.to * (1 + 1e-9)) continue;
      if (m != 1 && high - low > 2) continue;
      const bool named = m == 1 ? (high - p) % step == 0 : few;
      const std::string label = !named                   ? ""
                                : high <= 3 && low >= -3 ? decimal_text(value)
                                : m == 1                 ? power_text(p)
                                                         : decimal_text(value);
      ticks.push_back({value, label});
    }
  }
  return ticks;
}

std::vector<double> round_values(double from, double to, int most) {
  const double raw = (to - from) / std::max(most, 1);
  if (!(raw > 0)) return {from};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power * 10;
  for (const double m : {1.0, 2.0, 2.5, 5.0}) {
    if (m * power >= raw * (1 - 1e-9)) {
      step = m * power;
      break;
    }
  }
  std::vector<double> values;
  for (double i = std::ceil(from / step - 1e-9); i * step <= to + step * 1e-9; ++i) {
    values.push_back(i * step + 0.0);  // no negative zero
  }
  return values;
}

Scale log_scale(double lowest, double highest, double begin, double end) {
  // To the next of 1, 2, 5 times a power of ten.
  const auto round = [](double v, bool up) {
    const double power = std::pow(10.0, std::floor(std::log10(v)));
    double best = up ? 10 * power : power;
    for (const double m : {1.0, 2.0, 5.0}) {
      const double edge = m * power;
      if (up && edge >= v * (1 - 1e-9)) return edge;
      if (!up && edge <= v * (1 + 1e-9)) best = edge;
    }
    return best;
  };
  double from = round(lowest / 1.15, false), to = round(highest * 1.15, true);
  if (to < 4 * from) from = round(from / 2, false), to = round(to * 2, true);
  return {.from = from, .to = to, .begin = begin, .end = end, .log = true};
}

double text_width(std::string_view text, double size) {
  double ems = 0;
  while (!text.empty()) {
    const int length = std::max(1, utf8_front(text).length);
    ems += length >= 3 && static_cast<uint8_t>(text[0]) >= 0xe3 ? 1.05 : 0.59;
    text.remove_prefix(static_cast<size_t>(length));
  }
  return ems * size;
}

std::string px(double value) {
  CHECK(std::isfinite(value));
  std::string text = fmt::format("{:.1f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text == "-0" ? "0" : text;
}

Svg::Svg(double width, double height, const std::string& label, const std::string& classes) {
  out_ = fmt::format("<svg{} viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
                     class_of(classes), px(width), px(height), escape(label));
}

void Svg::text(double x, double y, const std::string& anchor, const std::string& classes,
               std::string_view text, const std::string& more) {
  out_ += fmt::format("<text x=\"{}\" y=\"{}\"{}{}{}>{}</text>\n", px(x), px(y),
                      anchor == "start" ? "" : " text-anchor=\"" + anchor + "\"", class_of(classes),
                      more.empty() ? "" : " " + more, escape(text));
}

void Svg::line(double x1, double y1, double x2, double y2, const std::string& classes) {
  out_ += fmt::format("<path d=\"M{},{}L{},{}\"{}/>\n", px(x1), px(y1), px(x2), px(y2),
                      class_of(classes));
}

void Svg::rect(const Box& box, const std::string& classes, std::string_view title,
               const std::string& more) {
  out_ += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"{}{}{}\n", px(box.x),
                      px(box.y), px(std::max(box.width, 0.0)), px(std::max(box.height, 0.0)),
                      class_of(classes), more.empty() ? "" : " " + more, close("rect", title));
}

void Svg::circle(double x, double y, double r, const std::string& classes, std::string_view title) {
  out_ += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"{}\"{}{}\n", px(x), px(y), px(r),
                      class_of(classes), close("circle", title));
}

void Svg::path(const std::string& d, const std::string& classes, std::string_view title) {
  out_ += fmt::format("<path d=\"{}\"{}{}\n", d, class_of(classes), close("path", title));
}

void Svg::open_group(const std::string& attributes) { out_ += "<g " + attributes + ">\n"; }
void Svg::close_group() { out_ += "</g>\n"; }
std::string Svg::done() { return std::move(out_) + "</svg>\n"; }

std::string series_style(size_t rank, size_t rows) {
  const double share = rows > 1 ? static_cast<double>(rank) / static_cast<double>(rows - 1) : 0;
  return fmt::format("--c:var(--s{})", std::lround(share * (kSeriesColours - 1)));
}

}  // namespace carat::audit::page
