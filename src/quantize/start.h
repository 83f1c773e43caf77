// Codes that methods begin with which better what others made, and those methods as a whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quantize/feedback_run.h"
#include "quantize/job.h"

namespace carat::quantize {

enum class Start : uint8_t {
  kFeedback,   // feedback_run.h
  kRound,      // round_all
  kAutoRound,  // auto_round.h with its defaults, which begins with kFeedback: of scales only
};

struct RefineOptions {
  Start start = Start::kFeedback;
  FeedbackOptions feedback;  // of kFeedback, and of kAutoRound's beginning
  int64_t steps = 0;         // 0: the method's own default
  double rate = 0;           // the same
};

// What a method that betters codes did: to a layer, or to all.
struct Refinement {
  std::string what;              // "layer 3"
  double before = 0, after = 0;  // by the method's own measure
};

// Encode the start, and better it: auto_round.h and scale_distill.h.
std::vector<MatrixResult> auto_round(const Job& job, const RefineOptions& options,
                                     std::vector<Refinement>& refined);
std::vector<MatrixResult> distill_scales(const Job& job, const RefineOptions& options,
                                         std::vector<Refinement>& refined);

}  // namespace carat::quantize
