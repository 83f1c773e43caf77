// The state of a training run in a file: all that an exact continuation needs.
//
// Layout: "carat-train-1\n", u64 length of a JSON header, the header (fingerprint of the run, step,
// number of parameters, smoothed loss), then weights, first and second moments as float32,
// little-endian. Written under a temporary name and renamed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace carat::train {

struct TrainState {
  std::vector<float> weights, m, v;  // same size
  int64_t step = 0;                  // finished steps
  double smooth_loss = 0;
  double learning_rate_sum = 0;
};

// `fingerprint` says everything that the continuation depends on: configuration, options, text.
void save_state(const std::string& path, const Json& fingerprint, const TrainState& state);

// Throws Error if the file is damaged or belongs to another run (naming the first difference).
// `n` is the number of parameters expected.
TrainState load_state(const std::string& path, const Json& fingerprint, int64_t n);

}  // namespace carat::train
