// Signed gradient descent on rounding (AutoRound), layer by layer over a whole model.
//
// A layer is given what the layers settled before it make of the text, and shall give what the
// source's layer gives for what the source's layers before it give: the squared distance of the
// residual stream behind the layer, attention, feed-forward and per-layer part together. Of all
// matrices of a layer at once the codes and the scales of blocks are trained (code_descent.h).
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/job.h"
#include "quantize/start.h"

namespace carat::quantize {

struct AutoRoundOptions {
  int64_t steps = 100;
  int64_t batch = 4;         // chunks a step
  double rate = 0;           // of the first step, falling to 0 in a straight line; 0: 0.4 / steps
  double scale_rate = 0.25;  // times `rate`, for the factors of scales
  double range = 0.1;        // of those factors: [1 - range, 1 + range]
};

// Throws Error that says how much memory is needed if job.memory does not hold the states. Takes
// nothing.
void check_auto_round(const Job& job);

// Betters what the job's store has of layers, and sets `results` of them: the best encoding of a
// layer over all of the text counts, be it the one that it began with. `refined`: each layer's root
// mean square distance, relative to what the source's gives. REQUIRES: the store has every matrix
// that has codes.
//
// Memory: job.memory holds the states of the text twice and one layer as floats with what training
// it takes (16 bytes a weight, and the values of a chunk); a layer that does not fit stays as it
// began. Throws Error if the states do not fit (check_auto_round).
void run_auto_round(const Job& job, const AutoRoundOptions& options,
                    std::vector<MatrixResult>& results, std::vector<Refinement>& refined);

}  // namespace carat::quantize
