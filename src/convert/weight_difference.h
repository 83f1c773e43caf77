// How far the weights of two checkpoints of one network are apart, tensor by tensor.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "io/checkpoint.h"
#include "model/config.h"
#include "tensor/dtype.h"

namespace carat::convert {

struct WeightDifference {
  std::string name;           // as GGUF files call it
  DType dtype = DType::kF32;  // in the second checkpoint; C2, C4, C8: codes
  int64_t layer = -1;         // -1: of no layer
  int64_t weights = 0;
  int64_t bytes = 0;        // in the second checkpoint, scales included
  double relative_rms = 0;  // root mean square of b - a by that of a; 1 if all of a is 0
  double largest = 0;       // |b - a| by the root mean square of a
};

struct WeightDifferenceHooks {
  std::function<void(int64_t done, int64_t total)> progress = {};  // weights
  const std::atomic<bool>* stop = nullptr;                         // set: throws Interrupted
};

// Whether two configs give the same text tensors the same shapes; one may have an output matrix of
// its own where the other has its token embedding.
[[nodiscard]] bool are_same_network(const model::Config& a, const model::Config& b);

// Every tensor that both have, in the order of the network, as decoded; codes without the rounding
// of activations. Left out: a tensor whose weights are not all finite. Reads the files piece by
// piece with some MB a thread; results do not depend on the number of threads. Throws Error if a
// tensor cannot be read or has another shape. REQUIRES: are_same_network.
[[nodiscard]] std::vector<WeightDifference> measure_weight_differences(
    const io::Checkpoint& a, const io::Checkpoint& b, ThreadPool& pool,
    const WeightDifferenceHooks& hooks = {});

}  // namespace carat::convert
