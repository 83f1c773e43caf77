#include "quantize/auto_round.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "quantize/chunk_order.h"
#include "quantize/code_descent.h"
#include "quantize/layer_tape.h"
#include "quantize/layer_walk.h"
#include "quantize/live_weights.h"
#include "quantize/round.h"

namespace carat::quantize {
namespace {

// The default first rate times the steps: a weight can move half as far.
constexpr double kTravel = 0.4;
constexpr int64_t kLooks = 10;  // at the whole text, while a layer is trained

// One matrix of the layer at work.
struct Trained {
  const MatrixPlan* plan;
  CodeDescent codes;
  std::vector<std::byte> best;
};

// Memory beside the states of the source's walk and of the target's.
int64_t states_left(const Job& job) {
  return memory_beside_states(job.memory, job.chunks, 2, job.source.config());
}

class AutoRound {
 public:
  AutoRound(const Job& job, const AutoRoundOptions& options, std::vector<MatrixResult>& results,
            std::vector<Refinement>& refined)
      : job_(job),
        options_(options),
        results_(results),
        refined_(refined),
        config_(job.source.config()),
        live_(job.source.weights) {
    for (const auto& chunk : job.chunks) {
      longest_ = std::max(longest_, static_cast<int64_t>(chunk.size()));
    }
  }

  void run() {
    left_ = states_left(job_);
    for (const MatrixPlan& m : job_.matrices) {
      if (m.ref.layer < 0 && has_codes(job_, m)) use_encoded(job_, m, live_);
    }
    LayerWalk source(job_.source.weights, job_.chunks, job_.pool, job_.table, job_.stop);
    LayerWalk walk(live_.weights(), job_.chunks, job_.pool, job_.table, job_.stop);
    for (int64_t layer = 0; layer < config_.n_layers; ++layer) {
      source.advance(job_.source.weights);
      settle(layer, source, walk);
      walk.advance(live_.weights());
    }
  }

 private:
  LayerTape::Part part(int64_t layer) const {
    LayerTape::Part p;
    p.begin = layer;
    p.end = layer + 1;
    p.most_tokens = longest_;
    return p;
  }

  void settle(int64_t layer, const LayerWalk& source, const LayerWalk& walk) {
    std::vector<const MatrixPlan*> matrices;
    int64_t need = LayerTape::bytes(config_, part(layer));
    for (const MatrixPlan& m : job_.matrices) {
      if (m.ref.layer != layer || !has_codes(job_, m)) continue;
      use_encoded(job_, m, live_);
      matrices.push_back(&m);
      need += *element_count(m.shape) * CodeDescent::kBytesPerWeight +
              3 * *byte_count(m.dtype, m.shape);
    }
    if (matrices.empty() || need > left_) return;
    train(layer, matrices, source, walk);
  }

  Trained begin(const MatrixPlan& m) const {
    std::vector<float> weights(static_cast<size_t>(*element_count(m.shape)));
    job_.rows.read(m.ref, 0, *element_count(m.shape) / m.shape.back(), weights.data());
    std::vector<std::byte> bytes(static_cast<size_t>(*byte_count(m.dtype, m.shape)));
    job_.store.read(m.name, 0, bytes);
    return {&m,
            CodeDescent(m.dtype, m.shape.back(), std::move(weights), bytes,
                        static_cast<float>(options_.range)),
            bytes};
  }

  void train(int64_t layer, const std::vector<const MatrixPlan*>& matrices, const LayerWalk& source,
             const LayerWalk& walk) {
    LayerTape tape(live_.weights(), part(layer), job_.pool, job_.table);
    std::vector<Trained> trained;
    for (const MatrixPlan* m : matrices) trained.push_back(begin(*m));
    const double rate =
        options_.rate > 0 ? options_.rate : kTravel / static_cast<double>(options_.steps);
    const int64_t between = std::max<int64_t>(1, options_.steps / kLooks);
    std::vector<size_t> all(job_.chunks.size());
    std::iota(all.begin(), all.end(), size_t{0});
    ChunkOrder order(std::move(all));
    double first = 0, best = 0;
    for (int64_t step = 0; step <= options_.steps; ++step) {
      for (Trained& t : trained) t.codes.decode(tape.values(t.plan->ref), job_.pool);
      if (step % between == 0 || step == options_.steps) {
        const double now = distance(layer, tape, source, walk);
        if (step == 0) first = best = now;
        if (now < best) {
          best = now;
          for (Trained& t : trained) t.best = t.codes.encode(job_.pool);
        }
      }
      if (step == options_.steps) break;
      report(layer, step);
      tape.clear_gradients();
      for (int64_t i = 0; i < options_.batch; ++i) {
        job_.check_stop();
        const size_t c = order.next();
        load(layer, walk, c);
        (void)tape.distance_and_gradient(input_, source.states(c), 1.0);
      }
      const double now =
          rate * (1 - static_cast<double>(step) / static_cast<double>(options_.steps));
      for (Trained& t : trained) {
        t.codes.step(tape.gradients(t.plan->ref), static_cast<float>(now),
                     static_cast<float>(now * options_.scale_rate), job_.pool);
      }
    }
    finish(layer, trained, source, first, best);
  }

  void finish(int64_t layer, std::vector<Trained>& trained, const LayerWalk& source, double first,
              double best) {
    double whole = 0;
    for (size_t c = 0; c < job_.chunks.size(); ++c) {
      for (const float x : source.states(c)) whole += double{x} * x;
    }
    if (whole == 0) whole = 1;
    refined_.push_back(
        {"layer " + std::to_string(layer), std::sqrt(first / whole), std::sqrt(best / whole)});
    for (Trained& t : trained) {
      job_.store.put(t.plan->name, t.plan->dtype, t.plan->shape, 0, t.best);
      live_.replace(t.plan->ref, t.plan->dtype, std::move(t.best));
      for (MatrixResult& r : results_) {
        if (r.name == t.plan->name) r = {r.name, "auto_round", -1};
      }
    }
  }

  // The layer's input of a chunk, in input_.
  void load(int64_t layer, const LayerWalk& walk, size_t chunk) {
    input_ = {job_.chunks[chunk], walk.states(chunk), walk.embedded(chunk), {}, {}};
    const model::LayerConfig l = config_.layer(layer);
    if (l.owns_kv) return;
    walk.keys_and_values(chunk, l.kv_layer, k_, v_);
    input_.k = k_;
    input_.v = v_;
  }

  double distance(int64_t layer, LayerTape& tape, const LayerWalk& source, const LayerWalk& walk) {
    double sum = 0;
    for (size_t c = 0; c < job_.chunks.size(); ++c) {
      job_.check_stop();
      load(layer, walk, c);
      sum += tape.distance(input_, source.states(c));
    }
    return sum;
  }

  void report(int64_t layer, int64_t step) const {
    if (!job_.progress) return;
    job_.progress(layer * options_.steps + step, config_.n_layers * options_.steps,
                  "layer " + std::to_string(layer));
  }

  const Job& job_;
  const AutoRoundOptions& options_;
  std::vector<MatrixResult>& results_;
  std::vector<Refinement>& refined_;
  const model::Config& config_;
  LiveWeights live_;
  LayerTape::Input input_;
  std::vector<float> k_, v_;
  int64_t longest_ = 0;  // tokens of a chunk
  int64_t left_ = 0;     // memory for a layer
};

}  // namespace

void check_auto_round(const Job& job) { (void)states_left(job); }

void run_auto_round(const Job& job, const AutoRoundOptions& options,
                    std::vector<MatrixResult>& results, std::vector<Refinement>& refined) {
  CHECK(options.steps >= 1 && options.batch >= 1 && options.range > 0 && options.range < 1);
  AutoRound(job, options, results, refined).run();
}

}  // namespace carat::quantize
