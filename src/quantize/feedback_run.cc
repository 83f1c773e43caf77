#include "quantize/feedback_run.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "calibrate/gram.h"
#include "quantize/factor.h"
#include "quantize/feedback.h"
#include "quantize/layer_walk.h"
#include "quantize/live_weights.h"
#include "quantize/round.h"

namespace carat::quantize {
namespace {

using model::TensorKind;
using model::TensorRef;

constexpr int64_t kWindow = int64_t{1} << 24;  // elements of a matrix at a time

// Matrices of a layer that read the same input, in the order of the network.
const std::vector<std::vector<TensorKind>> kGroups = {
    {TensorKind::kQ, TensorKind::kK, TensorKind::kV},
    {TensorKind::kO},
    {TensorKind::kGate, TensorKind::kUp},
    {TensorKind::kDown},
    {TensorKind::kExpertsGateUp},
    {TensorKind::kExpertsDown},
    {TensorKind::kPleGate},
    {TensorKind::kPleOut}};

class FeedbackRun {
 public:
  FeedbackRun(const Job& job, const FeedbackOptions& options)
      : job_(job), options_(options), live_(job.source.weights), results_(list_kept(job)) {
    for (const MatrixPlan& m : job.matrices) total_ += *element_count(m.shape);
  }

  std::vector<MatrixResult> run() {
    const model::Config& config = job_.source.config();
    left_ = memory_beside_states(job_.memory, job_.chunks, 1, config);
    tables();
    LayerWalk walk(weights(), job_.chunks, job_.pool, job_.table, job_.stop);
    group(walk, {{TensorKind::kPleProjection, -1}});
    for (int64_t layer = 0; layer < config.n_layers; ++layer) {
      for (const auto& kinds : kGroups) {
        std::vector<TensorRef> refs;
        for (const TensorKind kind : kinds) refs.push_back({kind, layer});
        group(walk, refs);
      }
      walk.advance(weights());
    }
    if (!config.tied_embeddings) group(walk, {{TensorKind::kLmHead, -1}});
    return std::move(results_);
  }

 private:
  const model::Weights& weights() const {
    return options_.original_inputs ? job_.source.weights : live_.weights();
  }

  void advance(const MatrixPlan& m) {
    if (job_.progress) job_.progress(done_, total_, m.name);
    done_ += *element_count(m.shape);
  }

  // Here also a table that is the output matrix too is only looked up.
  void tables() {
    for (const TensorKind kind : {TensorKind::kTokenEmbedding, TensorKind::kPleTable}) {
      const MatrixPlan* const m = job_.find({kind, -1});
      if (m == nullptr || !has_codes(job_, *m)) continue;
      advance(*m);
      results_.push_back(encode_weighted(job_, *m, column_weights(job_.imatrix, *m)));
      look_up_encoded(job_, *m, live_);
    }
  }

  void group(LayerWalk& walk, const std::vector<TensorRef>& refs) {
    std::vector<const MatrixPlan*> matrices;
    for (const TensorRef ref : refs) {
      const MatrixPlan* const m = job_.find(ref);
      if (m != nullptr && has_codes(job_, *m)) matrices.push_back(m);
    }
    if (matrices.empty()) return;
    const kernels::Weight& first =
        weights().at(matrices.front()->ref.kind, matrices.front()->ref.layer);
    const int64_t at_once = std::min(first.count, left_ / Factor::bytes(first.cols));
    if (at_once == 0) {
      for (const MatrixPlan* m : matrices) {
        advance(*m);
        results_.push_back(encode_weighted(job_, *m, column_weights(job_.imatrix, *m)));
        settle(*m);
      }
      return;
    }
    for (const MatrixPlan* m : matrices) {
      results_.push_back({m->name, "feedback", -1});
      errors_.emplace_back();
    }
    const size_t base = results_.size() - matrices.size();
    for (int64_t begin = 0; begin < first.count; begin += at_once) {
      if (begin == 0) advance_all(matrices);
      const int64_t n = std::min(at_once, first.count - begin);
      calibrate::GramPass pass;
      pass.parts = {{calibrate::input_of(matrices.front()->ref), begin, n}};
      calibrate::GramSums sums(pass, weights(), job_.pool);
      walk.observe(weights(), sums);
      for (int64_t i = begin; i < begin + n; ++i) {
        encode(matrices, *sums.find(matrices.front()->ref, i), i, base);
      }
    }
    for (size_t i = 0; i < matrices.size(); ++i) {
      results_[base + i].output_error = errors_[i].relative_rms();
      settle(*matrices[i]);
    }
    errors_.clear();
  }

  void advance_all(const std::vector<const MatrixPlan*>& matrices) {
    for (const MatrixPlan* m : matrices) advance(*m);
  }

  // Matrix number `index` of each parameter.
  void encode(const std::vector<const MatrixPlan*>& matrices, const calibrate::Gram& gram,
              int64_t index, size_t base) {
    const bool enough = gram.count >= gram.columns;
    std::vector<float> seen;
    for (int64_t c = 0; c < gram.columns; ++c) {
      seen.push_back(static_cast<float>(gram.values[static_cast<size_t>(c * (gram.columns + 1))]));
    }
    const Factor factor(gram, options_.damping, job_.pool);
    // Some weight for columns that nothing was seen of.
    for (float& s : seen) s += static_cast<float>(factor.damping());
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (!enough) results_[base + i].method = "feedback, importance where little was seen";
      encode_matrix(*matrices[i], factor, index, enough, seen, errors_[i]);
    }
  }

  void encode_matrix(const MatrixPlan& m, const Factor& factor, int64_t index, bool enough,
                     const std::vector<float>& seen, OutputError& error) try {
    const int64_t columns = m.shape.back();
    const int64_t rows = m.shape[m.shape.size() - 2];
    const int64_t window = std::max<int64_t>(1, kWindow / columns);
    std::vector<float> values;
    std::vector<std::byte> out;
    for (int64_t first = 0; first < rows; first += window) {
      job_.check_stop();
      FeedbackCall call;
      call.dtype = m.dtype;
      call.rows = std::min(window, rows - first);
      call.columns = columns;
      values.resize(static_cast<size_t>(call.rows * columns));
      out.resize(static_cast<size_t>(call.rows * row_bytes(m.dtype, columns)));
      job_.rows.read(m.ref, index * rows + first, call.rows, values.data());
      call.weights = values.data();
      call.out = out.data();
      error.add(enough ? encode_with_feedback(call, factor, job_.pool)
                       : encode_by_weight(call, factor, seen, job_.pool));
      job_.store.put(m.name, m.dtype, m.shape, index * rows + first, out);
    }
  } catch (const Error& e) {
    throw e.with_place("tensor " + m.name);
  }

  void settle(const MatrixPlan& m) {
    if (!options_.original_inputs) use_encoded(job_, m, live_);
  }

  const Job& job_;
  FeedbackOptions options_;
  LiveWeights live_;
  std::vector<MatrixResult> results_;
  std::vector<OutputError> errors_;  // of the group at work
  int64_t left_ = 0;                 // memory for sums
  int64_t done_ = 0, total_ = 0;     // elements
};

}  // namespace

std::vector<MatrixResult> run_feedback(const Job& job, const FeedbackOptions& options) {
  return FeedbackRun(job, options).run();
}

}  // namespace carat::quantize
