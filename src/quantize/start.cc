#include "quantize/start.h"

#include <utility>

#include "base/error.h"
#include "quantize/auto_round.h"
#include "quantize/round.h"
#include "quantize/scale_distill.h"

namespace carat::quantize {

using model::TensorKind;

void use_encoded(const Job& job, const MatrixPlan& m, LiveWeights& live) {
  const bool tied = job.source.config().tied_embeddings;
  if (m.ref.kind == TensorKind::kPleTable || (m.ref.kind == TensorKind::kTokenEmbedding && !tied)) {
    const auto stored = job.store.find(m.name);
    CHECK(stored.has_value());
    live.replace_looked_up(m.ref, m.dtype, *stored->file, stored->offset);
    return;
  }
  std::vector<std::byte> rows(static_cast<size_t>(*byte_count(m.dtype, m.shape)));
  job.store.read(m.name, 0, rows);
  live.replace(m.ref, m.dtype, std::move(rows));
}

namespace {

std::vector<MatrixResult> encode_start(const Job& job, const RefineOptions& options) {
  return options.start == Start::kRound ? round_all(job) : run_feedback(job, options.feedback);
}

}  // namespace

std::vector<MatrixResult> auto_round(const Job& job, const RefineOptions& options,
                                     std::vector<Refinement>& refined) {
  CHECK(options.start != Start::kAutoRound);
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
  std::vector<MatrixResult> results = encode_start(job, options);
  if (options.start == Start::kAutoRound) run_auto_round(job, {}, results, refined);
  ScaleOptions o;
  if (options.steps > 0) o.steps = options.steps;
  if (options.rate > 0) o.rate = options.rate;
  run_scale_distillation(job, o, results, refined);
  return results;
}

}  // namespace carat::quantize
