// A model whose matrices have the types that are tried, to compute with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "quantize/choices.h"
#include "quantize/live_weights.h"

namespace carat::quantize {

// The index of a matrix's choice, or nothing: as it is in the source.
using Pick = std::optional<size_t>;

// Codes are those of method round. Used by one thread.
class Mix {
 public:
  // Both outlive it. Begins as the source. Encoded matrices are kept for the next time while they
  // take less than `memory` bytes together. Tables that are only looked up are kept in a file
  // without a name beside `target`, each type that was tried.
  Mix(const Job& job, std::span<const MatrixChoices> choices, const std::string& target,
      int64_t memory);

  void set(size_t matrix, Pick pick);
  void set(std::span<const Pick> picks);
  const std::vector<Pick>& picks() const { return picks_; }
  const model::Weights& weights() const { return live_.weights(); }

 private:
  std::vector<std::byte> encoded(const MatrixPlan& plan, size_t matrix, size_t choice);
  void look_up(const MatrixPlan& plan);

  const Job& job_;
  std::span<const MatrixChoices> choices_;
  EncodedStore tables_;
  LiveWeights live_;
  std::vector<Pick> picks_;
  int64_t left_;  // of the memory
  std::map<std::pair<size_t, size_t>, std::vector<std::byte>> kept_;
};

}  // namespace carat::quantize
