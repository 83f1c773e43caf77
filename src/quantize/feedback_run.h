// Error feedback (feedback.h) over a whole model, layer by layer.
#pragma once

#include <vector>

#include "quantize/job.h"

namespace carat::quantize {

struct FeedbackOptions {
  double damping = 0.01;  // of Factor
  // Takes each layer's inputs from the source instead of from what was rounded so far.
  bool original_inputs = false;
};

// In the order in which the network uses them: matrices that share an input share its sums, and
// inputs are seen anew after each such group was rounded. Experts have sums of their own; one that
// saw fewer rows than it has columns is rounded with the weights of those it saw. Tables that are
// looked up (a token embedding that is the output matrix too) are rounded by the job's importance
// matrix, before all others.
//
// Memory: job.memory holds the states of the text and one group's sums; where it does not hold the
// sums of a single matrix, that is rounded by importance. Throws Error if it does not hold the
// states.
std::vector<MatrixResult> run_feedback(const Job& job, const FeedbackOptions& options);

}  // namespace carat::quantize
