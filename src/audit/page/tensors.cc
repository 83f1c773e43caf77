#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "audit/page/html.h"
#include "audit/page/parts.h"
#include "audit/page/svg.h"

namespace carat::audit::page {
namespace {

constexpr size_t kMostLayers = 256;
constexpr size_t kMostKinds = 64;

struct ErrorRange {
  double low = std::numeric_limits<double>::infinity(), high = 0;
  int colour(double error) const {
    if (high <= low) return kHeatColours / 2;
    const double share = std::log(error / low) / std::log(high / low);
    return static_cast<int>(
        std::clamp(share * kHeatColours, 0.0, static_cast<double>(kHeatColours - 1)));
  }
};

// Of the matrices: vectors, which lose little or nothing, would stretch the colours.
ErrorRange range_of(const Section& section) {
  ErrorRange range;
  for (const Row& row : section.rows) {
    int64_t largest = 0;
    for (const TensorText& t : row.tensors) {
      if (t.layer >= 0) largest = std::max(largest, t.weights);
    }
    for (const TensorText& t : row.tensors) {
      if (t.weights < largest / 100) continue;
      if (!(t.relative_error > 0) || !std::isfinite(t.relative_error)) continue;
      range.low = std::min(range.low, t.relative_error);
      range.high = std::max(range.high, t.relative_error);
    }
  }
  // Rounding in the last bit would stretch the colours over nothing.
  range.low = std::max(range.low, range.high * 1e-4);
  return range;
}

// The layers' tensors of which at least one lost something, by kind and layer.
class Grid {
 public:
  explicit Grid(const Row& row) {
    for (const TensorText& t : row.tensors) {
      if (t.layer < 0 || static_cast<size_t>(t.layer) >= kMostLayers) continue;
      layers_ = std::max(layers_, static_cast<size_t>(t.layer) + 1);
      if (t.relative_error != 0 &&
          std::find(kinds_.begin(), kinds_.end(), t.kind) == kinds_.end() &&
          kinds_.size() < kMostKinds) {
        kinds_.push_back(t.kind);
      }
      cells_[{t.kind, t.layer}] = &t;
    }
  }
  size_t layers() const { return layers_; }
  const std::vector<std::string>& kinds() const { return kinds_; }
  const TensorText* at(const std::string& kind, size_t layer) const {
    const auto found = cells_.find({kind, static_cast<int64_t>(layer)});
    return found == cells_.end() ? nullptr : found->second;
  }

 private:
  size_t layers_ = 0;
  std::vector<std::string> kinds_;
  std::map<std::pair<std::string, int64_t>, const TensorText*> cells_;
};

std::string error_text(double error) {
  if (error == 0) return "exact";
  return percent_text(error, error < 0.001 ? 4 : error < 0.01 ? 3 : 2);
}

std::string title_of(const TensorText& t) {
  std::string text = fmt::format("{}: {}, {}", t.name, t.type, error_text(t.relative_error));
  if (t.weights > 0 && t.bytes > 0) {
    text += fmt::format(", {:.2f} bits a weight",
                        8 * static_cast<double>(t.bytes) / static_cast<double>(t.weights));
  }
  return text;
}

void draw_cell(Svg* svg, const Box& box, const TensorText* t, const ErrorRange& range) {
  if (t == nullptr) return;
  if (t->relative_error == 0) {
    svg->rect(box, "same", title_of(*t));
  } else if (std::isfinite(t->relative_error)) {
    svg->rect(box, "", title_of(*t),
              fmt::format("fill=\"var(--h{})\"", range.colour(t->relative_error)));
  }
}

std::string label_of(const Row& row) { return "Errors of the tensors of " + row.model.name; }

// Layers from left to right.
std::string wide_map(const Row& row, const Grid& grid, const ErrorRange& range) {
  constexpr double kWidth = 960, kTop = 4;
  double left = 60;
  for (const std::string& kind : grid.kinds()) {
    left = std::max(left, text_width(shortened(kind, 26), 12) + 14);
  }
  const double step = std::min(34.0, (kWidth - left) / static_cast<double>(grid.layers()));
  constexpr double kStep = 22;
  const double ground = kTop + kStep * static_cast<double>(grid.kinds().size());
  Svg svg(kWidth, ground + 26, label_of(row), "wide");
  for (size_t k = 0; k < grid.kinds().size(); ++k) {
    const double y = kTop + kStep * static_cast<double>(k);
    svg.text(left - 10, y + 15, "end", "t", shortened(grid.kinds()[k], 26));
    for (size_t layer = 0; layer < grid.layers(); ++layer) {
      draw_cell(&svg, {left + step * static_cast<double>(layer), y, step - 1.5, kStep - 1.5},
                grid.at(grid.kinds()[k], layer), range);
    }
  }
  const size_t every = step >= 20 ? 1 : 5;
  for (size_t layer = 0; layer < grid.layers(); layer += every) {
    svg.text(left + step * (static_cast<double>(layer) + 0.5), ground + 17, "middle", "t",
             std::to_string(layer));
  }
  svg.text(left - 10, ground + 17, "end", "t", "layer");
  return svg.done();
}

// Layers from top to bottom.
std::string narrow_map(const Row& row, const Grid& grid, const ErrorRange& range) {
  constexpr double kLeft = 24, kWidth = 320;
  size_t longest = 0;
  for (const std::string& kind : grid.kinds()) {
    longest = std::max(longest, count_characters(shortened(kind, 22)));
  }
  const double top = 14 + 5.6 * static_cast<double>(longest);
  const double right = 30;  // room for the last slanted name
  const double step =
      std::min(34.0, (kWidth - kLeft - right) /
                         static_cast<double>(std::max<size_t>(1, grid.kinds().size())));
  const double height = grid.layers() > 12 ? 13 : 20;
  Svg svg(kWidth, top + height * static_cast<double>(grid.layers()) + 4, label_of(row), "narrow");
  for (size_t k = 0; k < grid.kinds().size(); ++k) {
    const double x = kLeft + step * static_cast<double>(k);
    svg.text(x + step / 2, top - 6, "start", "t", shortened(grid.kinds()[k], 22),
             fmt::format("transform=\"rotate(-62 {} {})\"", px(x + step / 2), px(top - 6)));
    for (size_t layer = 0; layer < grid.layers(); ++layer) {
      draw_cell(&svg, {x, top + height * static_cast<double>(layer), step - 1.5, height - 1.5},
                grid.at(grid.kinds()[k], layer), range);
    }
  }
  const size_t every = height >= 16 ? 1 : 5;
  for (size_t layer = 0; layer < grid.layers(); layer += every) {
    svg.text(kLeft - 6, top + height * (static_cast<double>(layer) + 0.5) + 4, "end", "t",
             std::to_string(layer));
  }
  return svg.done();
}

// "Q4_0: 45 tensors, 92 % of the weights".
std::string types_html(const Row& row) {
  struct Group {
    int64_t tensors = 0;
    double weights = 0, squares = 0;
  };
  std::map<std::string, Group> groups;
  double all = 0;
  for (const TensorText& t : row.tensors) {
    Group& g = groups[t.type];
    ++g.tensors;
    g.weights += static_cast<double>(t.weights);
    all += static_cast<double>(t.weights);
  }
  std::vector<std::pair<std::string, Group>> sorted(groups.begin(), groups.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.weights > b.second.weights; });
  std::string html = "<ul class=\"types\">";
  for (const auto& [type, g] : sorted) {
    html += fmt::format("<li><b>{}</b> {}, {} of the weights</li>", escape(type),
                        counted(g.tensors, "tensor", "tensors"),
                        percent_text(all > 0 ? g.weights / all : 0, 1));
  }
  for (const TensorText& t : row.tensors) {
    if (t.layer >= 0 || !(t.relative_error > 0)) continue;
    html += fmt::format("<li><code>{}</code> {} {}</li>", escape(shortened(t.kind, 40)),
                        escape(t.type), error_text(t.relative_error));
  }
  return html + "</ul>";
}

std::string scale_html(const ErrorRange& range) {
  std::string stops;
  for (int i = 0; i < kHeatColours; ++i) stops += fmt::format("{}var(--h{})", i ? "," : "", i);
  return fmt::format(
      "<div class=\"heat-scale\"><span>{}</span><i style=\"background:linear-gradient(90deg,{})\">"
      "</i><span>{}</span></div>",
      error_text(range.low), stops, error_text(range.high));
}

std::string candidate_html(const Section& section, size_t i, const ErrorRange& range, bool open) {
  const Row& row = section.rows[i];
  const auto exact = std::count_if(row.tensors.begin(), row.tensors.end(),
                                   [](const TensorText& t) { return t.relative_error == 0; });
  std::string html = fmt::format(
      "<details{} style=\"{}\"><summary><span class=\"dot\"></span><bdi>{}</bdi> <span "
      "class=\"soft\">{} of {} tensors exact</span></summary>",
      open ? " open" : "", series_style(i, section.rows.size()), escape(row.model.label),
      count_text(exact), count_text(static_cast<int64_t>(row.tensors.size())));
  const Grid grid(row);
  if (!grid.kinds().empty()) html += wide_map(row, grid, range) + narrow_map(row, grid, range);
  return html + types_html(row) + "</details>\n";
}

}  // namespace

std::string tensors_html(const Section& section) {
  const ErrorRange range = range_of(section);
  std::string body;
  for (size_t i = 0; i < section.rows.size(); ++i) {
    if (section.rows[i].tensors.empty()) continue;
    body += candidate_html(section, i, range, body.empty());
  }
  if (body.empty()) return {};
  return figure_html(
      "Which tensors lost what",
      "Root mean square of the difference of the weights by that of the weights themselves, by "
      "layer and tensor; the colours are the same for all candidates. Tensors of which no layer "
      "lost anything are left out of the map.",
      (range.high > 0 ? scale_html(range) : std::string()) + body);
}

}  // namespace carat::audit::page
