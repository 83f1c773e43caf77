// Drawing: scales, ticks, and an SVG that grows element by element.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace carat::audit::page {

// From values to pixels. A logarithmic one wants positive values.
struct Scale {
  double from = 0, to = 1;    // values
  double begin = 0, end = 1;  // pixels
  bool log = false;
  double operator()(double value) const;
};

struct Tick {
  double value = 0;
  std::string label;  // empty: a line without text
};

// Powers of ten, at most about `most` of them with a label; where the scale has fewer than two,
// 2 and 5 times them too.
[[nodiscard]] std::vector<Tick> log_ticks(const Scale& scale, int most);
// Round values, about `most`.
[[nodiscard]] std::vector<double> round_values(double from, double to, int most);
// Widened to powers of ten or to round values around what is shown.
[[nodiscard]] Scale log_scale(double lowest, double highest, double begin, double end);

// Pixels that a text takes at a font size, a little generous.
[[nodiscard]] double text_width(std::string_view text, double size);

// A coordinate: one digit after the point. REQUIRES: finite.
[[nodiscard]] std::string px(double value);

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
  bool meets(const Box& other) const {
    return x < other.x + other.width && other.x < x + width && y < other.y + other.height &&
           other.y < y + height;
  }
};

class Svg {
 public:
  // `label` says for screen readers what the figure shows. `classes`: "wide", "narrow", or none.
  Svg(double width, double height, const std::string& label, const std::string& classes);

  // `anchor`: start, middle or end. Text and titles are escaped here.
  void text(double x, double y, const std::string& anchor, const std::string& classes,
            std::string_view text, const std::string& more = {});
  void line(double x1, double y1, double x2, double y2, const std::string& classes);
  void rect(const Box& box, const std::string& classes, std::string_view title = {},
            const std::string& more = {});
  void circle(double x, double y, double r, const std::string& classes,
              std::string_view title = {});
  // `points`: "M1,2 L3,4"
  void path(const std::string& d, const std::string& classes, std::string_view title = {});
  void open_group(const std::string& attributes);
  void close_group();
  [[nodiscard]] std::string done();

 private:
  std::string out_;
};

// "--c:var(--s3)", the colour of the row with that rank among `rows`.
[[nodiscard]] std::string series_style(size_t rank, size_t rows);
inline constexpr int kSeriesColours = 13;
// Colours of errors: --h0 (small) to --h8.
inline constexpr int kHeatColours = 9;

}  // namespace carat::audit::page
