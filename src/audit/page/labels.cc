#include "audit/page/labels.h"

#include <algorithm>
#include <cmath>

namespace carat::audit::page {
namespace {

// Where the middle of a name lies from its point: steps to the right and down, nearest first.
struct Direction {
  double x, y;
};
constexpr Direction kDirections[] = {{1, 0}, {1, -0.7}, {1, 0.7},   {0, -1},
                                     {0, 1}, {-1, 0},   {-1, -0.7}, {-1, 0.7}};
constexpr double kDistances[] = {0, 10, 22, 36, 52};
constexpr double kGap = 9;  // between a point and its name

Label label_at(const Point& p, const Direction& d, double distance, double width, double size) {
  const double gap = kGap + distance;
  Label label;
  label.box.width = width;
  label.box.height = size * 1.2;
  // Sideways the name begins or ends beside the point; above and below it is centred.
  const double left = d.x > 0   ? p.x + gap * (d.y == 0 ? 1 : 0.8)
                      : d.x < 0 ? p.x - gap * (d.y == 0 ? 1 : 0.8) - width
                                : p.x - width / 2;
  const double middle = p.y + d.y * (gap + label.box.height / 2);
  label.box.x = left;
  label.box.y = middle - label.box.height / 2;
  // Widths are guesses: the text is tied to the side where its point is.
  label.x = d.x > 0 ? left : d.x < 0 ? left + width : p.x;
  label.anchor = d.x > 0 ? "start" : d.x < 0 ? "end" : "middle";
  label.baseline = middle + size * 0.35;
  label.leader = distance > 0;
  return label;
}

bool inside(const Box& box, const Box& frame) {
  return box.x >= frame.x && box.y >= frame.y && box.x + box.width <= frame.x + frame.width &&
         box.y + box.height <= frame.y + frame.height;
}

}  // namespace

std::vector<std::optional<Label>> place_labels(std::span<const Point> points, const Box& frame,
                                               std::vector<Box> taken, double size) {
  constexpr double kAround = 7;
  for (const Point& p : points) {
    taken.push_back({p.x - kAround, p.y - kAround, 2 * kAround, 2 * kAround});
  }
  std::vector<std::optional<Label>> labels(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    const double width = text_width(points[i].name, size);
    for (const double distance : kDistances) {
      for (const Direction& d : kDirections) {
        if (labels[i]) break;
        const Label label = label_at(points[i], d, distance, width, size);
        const bool free = std::none_of(taken.begin(), taken.end(),
                                       [&](const Box& b) { return b.meets(label.box); });
        if (!free || !inside(label.box, frame)) continue;
        labels[i] = label;
        taken.push_back(label.box);
      }
    }
  }
  return labels;
}

}  // namespace carat::audit::page
