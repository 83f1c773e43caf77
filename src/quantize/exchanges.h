// Which exchange of two matrices' types is worth a measurement.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "quantize/lagrange.h"

namespace carat::quantize {

// Proposes each exchange once.
class Exchanges {
 public:
  // The picks after the exchange that promises most: one matrix takes a larger choice of its hull,
  // and, where the room does not hold it, another one a smaller. Costs are trusted as far as a
  // share of them, so that what is predicted to lose a little may be proposed too. Nothing if all
  // were proposed, or none promises anything.
  std::optional<std::vector<size_t>> next(std::span<const std::vector<Offer>> offers,
                                          std::span<const size_t> picks, double room);

 private:
  std::set<std::vector<std::pair<size_t, size_t>>> proposed_;  // item, choice
};

}  // namespace carat::quantize
