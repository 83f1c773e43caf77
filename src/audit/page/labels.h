// Names beside points, so that none covers another one.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/page/svg.h"

namespace carat::audit::page {

struct Point {
  double x = 0, y = 0;
  std::string name;
};

struct Label {
  Box box;       // of the text
  double x = 0;  // where the text begins, has its middle or ends
  const char* anchor = "start";
  double baseline = 0;
  bool leader = false;  // far enough away to need a line to its point
};

// For each point, in order of importance, a place for its name: inside `frame`, not over the
// points, what is taken already or names placed before. None if there is no room.
[[nodiscard]] std::vector<std::optional<Label>> place_labels(std::span<const Point> points,
                                                             const Box& frame,
                                                             std::vector<Box> taken, double size);

}  // namespace carat::audit::page
