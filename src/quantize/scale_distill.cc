#include "quantize/scale_distill.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "model/forward.h"
#include "quantize/chunk_order.h"
#include "quantize/layer_tape.h"
#include "quantize/layer_walk.h"
#include "quantize/live_weights.h"
#include "quantize/round.h"
#include "quantize/scale_descent.h"
#include "train/loops.h"

namespace carat::quantize {
namespace {

using model::TensorClass;

constexpr int64_t kLooks = 10;    // at the chunks held out
constexpr size_t kHeldOutOf = 5;  // one of so many chunks
constexpr int64_t kMegabyte = 1'000'000;

// One matrix whose scales are trained.
struct Trained {
  const MatrixPlan* plan;
  ScaleDescent scales;
  std::vector<std::byte> best;
};

bool is_trained(const Job& job, const MatrixPlan& m) {
  const TensorClass cls = model::row_of(m.ref.kind).cls;
  return has_codes(job, m) && cls != TensorClass::kEmbedding && cls != TensorClass::kPleTable;
}

// All layers and the output.
LayerTape::Part whole_of(const Job& job) {
  LayerTape::Part p;
  p.end = job.source.config().n_layers;
  p.output = true;
  for (const auto& chunk : job.chunks) {
    p.most_tokens = std::max(p.most_tokens, static_cast<int64_t>(chunk.size()));
  }
  return p;
}

class ScaleDistillation {
 public:
  ScaleDistillation(const Job& job, const ScaleOptions& options, std::vector<MatrixResult>& results,
                    std::vector<Refinement>& refined)
      : job_(job),
        options_(options),
        results_(results),
        refined_(refined),
        config_(job.source.config()),
        live_(job.source.weights),
        cpu_(job.pool, job.table) {
    for (size_t c = 0; c < job.chunks.size(); ++c) {
      const bool held_out = c % kHeldOutOf == std::min(kHeldOutOf, job.chunks.size()) - 1;
      (held_out ? held_out_ : training_).push_back(c);
    }
  }

  void run() {
    std::vector<Trained> trained;
    for (const MatrixPlan& m : job_.matrices) {
      if (!has_codes(job_, m)) continue;
      use_encoded(job_, m, live_);
      if (is_trained(job_, m)) trained.push_back({&m, {m.dtype, stored(m)}, stored(m)});
    }
    LayerWalk source(job_.source.weights, job_.chunks, job_.pool, job_.table, job_.stop);
    for (int64_t i = 0; i < config_.n_layers; ++i) source.advance(job_.source.weights);
    train(trained, source);
    for (Trained& t : trained) finish(t);
  }

 private:
  std::vector<std::byte> stored(const MatrixPlan& m) const {
    std::vector<std::byte> rows(static_cast<size_t>(*byte_count(m.dtype, m.shape)));
    job_.store.read(m.name, 0, rows);
    return rows;
  }

  void train(std::vector<Trained>& trained, const LayerWalk& source) {
    LayerTape tape(live_.weights(), whole_of(job_), job_.pool, job_.table);
    ChunkOrder order(training_);
    const int64_t between = std::max<int64_t>(1, options_.steps / kLooks);
    double first = 0, best = 0;
    for (int64_t step = 0; step <= options_.steps; ++step) {
      if (step % between == 0 || step == options_.steps) {
        const double now = divergence(trained, source);
        if (step == 0) first = best = now;
        if (now < best) {
          best = now;
          for (Trained& t : trained) t.best = t.scales.encode(job_.pool);
        }
      }
      if (step == options_.steps) break;
      if (job_.progress) job_.progress(step, options_.steps, "scales");
      tape.clear_gradients();
      for (Trained& t : trained) t.scales.decode(tape.values(t.plan->ref), job_.pool);
      for (int64_t i = 0; i < options_.batch; ++i) learn(tape, source, order.next());
      const double left = 1 - static_cast<double>(step) / static_cast<double>(options_.steps);
      for (Trained& t : trained) {
        t.scales.step(tape.gradients(t.plan->ref), step + 1, options_.rate * left, job_.pool);
      }
    }
    refined_.push_back({"divergence of held-out chunks", first, best});
    improved_ = best < first;
  }

  void learn(LayerTape& tape, const LayerWalk& source, size_t chunk) {
    job_.check_stop();
    const std::vector<int32_t>& tokens = job_.chunks[chunk];
    const kernels::Value x =
        cpu_.embed(live_.weights().at(model::TensorKind::kTokenEmbedding), tokens, 0, config_.dim,
                   std::sqrt(static_cast<float>(config_.dim)));
    const kernels::Value teacher = logits(job_.source.weights, source, chunk);
    LayerTape::Input input;
    input.tokens = tokens;
    input.x = cpu_.view(x);
    if (config_.has_ple()) input.embedded = input.x;
    const double weight = 1.0 / static_cast<double>(tokens.size());
    (void)tape.divergence_and_gradient(input, cpu_.view(teacher).data(), weight);
  }

  // What a walk that is at its end expects.
  kernels::Value logits(const model::Weights& weights, const LayerWalk& walk, size_t chunk) {
    const std::span<const float> states = walk.states(chunk);
    const auto n = static_cast<int64_t>(states.size()) / config_.dim;
    return model::logits_of(weights, cpu_, cpu_.input(n, config_.dim, states));
  }

  // Mean over the tokens of the chunks held out, with the scales as they are now.
  double divergence(const std::vector<Trained>& trained, const LayerWalk& source) {
    for (const Trained& t : trained) {
      live_.replace(t.plan->ref, t.plan->dtype, t.scales.encode(job_.pool));
    }
    std::vector<std::vector<int32_t>> chunks;
    for (const size_t c : held_out_) chunks.push_back(job_.chunks[c]);
    LayerWalk walk(live_.weights(), chunks, job_.pool, job_.table, job_.stop);
    for (int64_t i = 0; i < config_.n_layers; ++i) walk.advance(live_.weights());
    double sum = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const kernels::Value wanted = logits(job_.source.weights, source, held_out_[i]);
      const kernels::Value got = logits(live_.weights(), walk, i);
      sum += divergence_of(cpu_.view(wanted), cpu_.view(got));
    }
    return sum / static_cast<double>(walk.tokens());
  }

  double divergence_of(std::span<const float> wanted, std::span<const float> got) const {
    const int64_t width = config_.vocab_size;
    const int64_t n = static_cast<int64_t>(wanted.size()) / width;
    std::vector<double> rows(static_cast<size_t>(n));
    job_.pool.parallel_for(n, 4, [&](int64_t begin, int64_t end, int) {
      std::vector<float> scratch(static_cast<size_t>(width));
      for (int64_t t = begin; t < end; ++t) {
        rows[static_cast<size_t>(t)] = train::loops<float>().distillation(
            width, wanted.data() + t * width, got.data() + t * width, 0, nullptr, scratch.data());
      }
    });
    double sum = 0;
    for (const double r : rows) sum += r;
    return sum;
  }

  void finish(Trained& t) {
    if (!improved_) return;
    job_.store.put(t.plan->name, t.plan->dtype, t.plan->shape, 0, t.best);
    for (MatrixResult& r : results_) {
      if (r.name != t.plan->name) continue;
      r.method += ", scales";
      r.output_error = -1;
    }
  }

  const Job& job_;
  const ScaleOptions& options_;
  std::vector<MatrixResult>& results_;
  std::vector<Refinement>& refined_;
  const model::Config& config_;
  LiveWeights live_;
  kernels::CpuOps cpu_;
  std::vector<size_t> training_, held_out_;  // chunks
  bool improved_ = false;
};

}  // namespace

void check_scale_distillation(const Job& job) {
  if (job.chunks.size() < 2) {
    throw Error({"the text is too short to hold a part of it out",
                 {},
                 "--text",
                 "at least two chunks (--context)",
                 std::to_string(job.chunks.size()),
                 {}});
  }
  const model::Config& config = job.source.config();
  const LayerTape::Part whole = whole_of(job);
  int64_t need = LayerTape::bytes(config, whole);
  for (const MatrixPlan& m : job.matrices) {
    if (is_trained(job, m)) need += ScaleDescent::bytes(m.dtype, *byte_count(m.dtype, m.shape));
  }
  need += 2 * LayerWalk::bytes(config, job.chunks);
  need += 8 * whole.most_tokens * config.vocab_size;  // logits of the source and of a look
  if (need <= job.memory) return;
  throw Error({"too little memory to train the whole model's scales",
               {},
               "--memory",
               "at least " + std::to_string(need / kMegabyte + 1) + " MB",
               std::to_string(job.memory / kMegabyte) + " MB",
               "this method needs the whole model as floats; auto_round and feedback work layer "
               "by layer"});
}

void run_scale_distillation(const Job& job, const ScaleOptions& options,
                            std::vector<MatrixResult>& results, std::vector<Refinement>& refined) {
  CHECK(options.steps >= 1 && options.batch >= 1 && options.rate > 0 && job.chunks.size() >= 2);
  ScaleDistillation(job, options, results, refined).run();
}

}  // namespace carat::quantize
