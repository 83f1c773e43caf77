#include "quantize/start.h"

#include "base/error.h"
#include "quantize/auto_round.h"
#include "quantize/round.h"
#include "quantize/scale_distill.h"

namespace carat::quantize {

namespace {

std::vector<MatrixResult> encode_start(const Job& job, const RefineOptions& options) {
  return options.start == Start::kRound ? round_all(job) : run_feedback(job, options.feedback);
}

}  // namespace

std::vector<MatrixResult> auto_round(const Job& job, const RefineOptions& options,
                                     std::vector<Refinement>& refined) {
  CHECK(options.start != Start::kAutoRound);
  check_auto_round(job);
  std::vector<MatrixResult> results = encode_start(job, options);
  AutoRoundOptions o;
  if (options.steps > 0) o.steps = options.steps;
  if (options.rate > 0) o.rate = options.rate;
  run_auto_round(job, o, results, refined);
  return results;
}

std::vector<MatrixResult> distill_scales(const Job& job, const RefineOptions& options,
                                         std::vector<Refinement>& refined) {
  check_scale_distillation(job);
  if (options.start == Start::kAutoRound) check_auto_round(job);
  std::vector<MatrixResult> results = encode_start(job, options);
  if (options.start == Start::kAutoRound) run_auto_round(job, {}, results, refined);
  ScaleOptions o;
  if (options.steps > 0) o.steps = options.steps;
  if (options.rate > 0) o.rate = options.rate;
  run_scale_distillation(job, o, results, refined);
  return results;
}

}  // namespace carat::quantize
