// Distillation of scales: codes stay, and the scales of blocks are trained so that the whole model
// expects what its source expects.
//
// KL(source || model) over the whole vocabulary, at every token of the text, runs backwards through
// all layers. Trained are the matrices of layers and the per-layer projection; tables that are
// looked up, and the output matrix, stay. A part of the text is held out: what counts is the
// divergence there, computed as inference does from encoded rows, and the scales that it was least
// with are kept, be they the first.
#pragma once

#include <cstdint>
#include <vector>

#include "quantize/job.h"
#include "quantize/start.h"

namespace carat::quantize {

struct ScaleOptions {
  int64_t steps = 100;
  int64_t batch = 4;    // chunks a step
  double rate = 0.002;  // of Adam on relative changes; falls to 0 in a straight line
};

// Throws Error that says how much memory is needed if job.memory is less: the whole model as floats
// (values and gradients), what a chunk leaves on the tape, the states of the text; and Error for a
// text of less than two chunks. Takes nothing.
void check_scale_distillation(const Job& job);

// Betters what the job's store has, and sets `results` of it. `refined`: mean divergence of the
// held-out chunks, in nats. REQUIRES: the check passes; the store has every matrix that has codes.
void run_scale_distillation(const Job& job, const ScaleOptions& options,
                            std::vector<MatrixResult>& results, std::vector<Refinement>& refined);

}  // namespace carat::quantize
