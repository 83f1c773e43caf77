// One choice for each of many items, so that what they cost together is least within a limit.
//
// The start is Lagrange's: with a price on what is limited, every item takes the choice of least
// cost plus price times use, which lies on the lower convex hull of its choices; the price is the
// one at which the limit is just kept. Then exchanges of one or two items fill what is left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace carat::quantize {

// What a choice takes of what is limited, and what it costs. Any finite numbers.
struct Offer {
  double use = 0;
  double cost = 0;
};

struct Allocation {
  std::vector<size_t> picks;  // of each item, an index of its offers
  double use = 0, cost = 0;
  // What a unit of use was worth where the hulls' steps ended; 0 if all were taken.
  double price = 0;
  // No picks within the limit cost less.
  double bound = 0;
};

// Indices of the offers on the lower convex hull, use ascending and cost descending: no offer of
// less use costs as little. REQUIRES: not empty.
[[nodiscard]] std::vector<size_t> lower_hull(std::span<const Offer> offers);

// Picks whose uses add up to `limit` at most. Nothing if even the least uses are more than that.
// Each result is a function of its arguments alone. REQUIRES: no item without an offer.
[[nodiscard]] std::optional<Allocation> allocate(std::span<const std::vector<Offer>> items,
                                                 double limit);

}  // namespace carat::quantize
