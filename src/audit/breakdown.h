// Where a candidate differs: positions sorted by how sure the reference was, by the entropy of what
// it expected, by their place in the chunk, by the domain of the text and by the divergence itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "audit/compare.h"
#include "audit/figure.h"

namespace carat::audit {

// A way to sort positions.
enum class Axis { kMargin, kEntropy, kPosition, kDomain };
inline constexpr Axis kAxes[] = {Axis::kMargin, Axis::kEntropy, Axis::kPosition, Axis::kDomain};

// Positions with from <= x < to, x being Position::margin(), the entropy in nats or
// Position::index; of the domain with index `from`.
struct Bin {
  double from = 0;
  double to = 0;  // may be infinite
  int64_t tokens = 0;
  int64_t chunks = 0;  // that have such positions
  int64_t flips = 0;   // positions where the most likely token is another
  Figure mean_kld;
  Figure top1_agreement;
};

// Bins that hold a position, in ascending order.
struct Breakdown {
  std::vector<Bin> by_margin;
  std::vector<Bin> by_entropy;
  std::vector<Bin> by_position;  // powers of two
  std::vector<Bin> by_domain;    // empty if the text has no domains
  std::vector<Bin>& of(Axis axis);
};

// Bins with positions in fewer chunks have no intervals.
inline constexpr int64_t kFewestChunksOfABin = 5;

// The lower ends of an axis' bins, ascending; the last bin has no upper end. REQUIRES: not kDomain.
[[nodiscard]] std::span<const double> bin_edges(Axis axis);

// The bin of a position. REQUIRES: not kDomain.
[[nodiscard]] size_t bin_of(Axis axis, const Position& position);

// How many positions have from <= kld < to.
struct HistogramBin {
  double from = 0;
  double to = 0;
  int64_t tokens = 0;
};

// Four bins for every factor of ten from 1e-8 on, one below, none beyond the last that holds a
// position.
class Histogram {
 public:
  void add(double kld);
  std::vector<HistogramBin> bins() const;

 private:
  std::vector<int64_t> counts_;
};

}  // namespace carat::audit
