// What each type of each matrix is expected to add to the mean KLD: measured for a few types, read
// off the weighted errors for the others, and corrected by what happens in the midst of others.
//
// The mean KLD grows with the square of what a matrix's output is off, so with its weighted error.
// Alone, a matrix in type t adds K(t); between measured types K is a line over the error. Types of
// floats add in proportion to their error; of quantized types the part that comes from rounding the
// inputs stays however small the error is. Sums over matrices are scaled to what a whole mix was
// measured to have.
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "quantize/choices.h"
#include "quantize/lagrange.h"
#include "quantize/mix.h"

namespace carat::quantize {

class CostModel {
 public:
  // Matrices of a group are measured together: an effect on one is shared out among its members by
  // their weighted errors. Every matrix is in one group. `choices` outlives it.
  CostModel(std::span<const MatrixChoices> choices, std::vector<std::vector<size_t>> groups);

  const std::vector<std::vector<size_t>>& groups() const { return groups_; }

  // Alone, the group in the types of `picks` (its members' are looked at) has this mean KLD.
  void add_alone(size_t group, std::span<const Pick> picks, double kld);
  // What the mix has. REQUIRES (of all below): every group was measured alone.
  void add_mix(std::span<const size_t> picks, double kld);
  // In the mix `before`, `after` being the same but for the group, the mean KLD sinks by `gain`,
  // known to within a standard error.
  struct Change {
    size_t group = 0;
    std::vector<size_t> before, after;
    double gain = 0, error = 0;
  };
  // Corrects all groups at once: what is known badly moves them little.
  void add_changes(std::span<const Change> changes);

  double cost(size_t matrix, size_t choice) const;
  double predict(std::span<const size_t> picks) const;
  // For allocate(): uses are bytes.
  std::vector<std::vector<Offer>> offers() const;

 private:
  double alone(size_t matrix, size_t choice) const;

  std::span<const MatrixChoices> choices_;
  std::vector<std::vector<size_t>> groups_;
  std::vector<std::vector<std::pair<double, double>>> measured_;  // [matrix]: error, KLD
  std::vector<double> correction_;                                // [matrix]
  double scale_ = 1;
};

// Groups of at most `most` in all: single matrices where they are few enough, else those of one
// kind in layers that follow each other. Tables are groups of their own.
[[nodiscard]] std::vector<std::vector<size_t>> make_groups(std::span<const MatrixChoices> choices,
                                                           size_t most);

}  // namespace carat::quantize
