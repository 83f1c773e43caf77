// Chunks of a text in an endless order: all of them, shuffled anew each time.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace carat::quantize {

class ChunkOrder {
 public:
  explicit ChunkOrder(std::vector<size_t> chunks, uint64_t seed = 1)
      : rng_(seed), order_(std::move(chunks)), at_(order_.size()) {
    CHECK(!order_.empty());
  }

  size_t next() {
    if (at_ == order_.size()) {
      at_ = 0;
      for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[rng_.below(i)]);
    }
    return order_[at_++];
  }

 private:
  Rng rng_;
  std::vector<size_t> order_;
  size_t at_;
};

}  // namespace carat::quantize
