// Some of a model's layers on the training tape: what they are fed comes from outside, their
// matrices are floats that a method may change between runs, and gradients of them come back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/weights.h"
#include "train/tape.h"

namespace carat::quantize {

// Used by one thread. Results do not depend on the number of threads.
class LayerTape {
 public:
  struct Part {
    int64_t begin = 0, end = 0;  // layers
    bool output = false;         // the final norm and the output matrix too
    int64_t most_tokens = 0;     // of a chunk
  };
  // A chunk before layer `begin`.
  struct Input {
    std::span<const int32_t> tokens;
    std::span<const float> x;         // [tokens, dim]
    std::span<const float> embedded;  // the same; empty without per-layer embeddings
    // [tokens, n_kv_heads * head_dim] of the layer whose K and V layer `begin` reads; empty if it
    // owns them. REQUIRES: no other layer of the part reads those of a layer before `begin`.
    std::span<const float> k, v;
  };

  // Values are those of `weights`, whatever types they have; rows of the per-layer table are looked
  // up in it at each run, so that it outlives this.
  LayerTape(const model::Weights& weights, const Part& part, ThreadPool& pool,
            const kernels::KernelTable& table);

  // Bytes that an object for such a part takes at most, both ways through a chunk included.
  static int64_t bytes(const model::Config& config, const Part& part);
  // What this one took so far.
  int64_t held() const;

  // A matrix of the part as floats, and its gradient.
  std::span<float> values(model::TensorRef ref);
  std::span<const float> gradients(model::TensorRef ref) const;
  void clear_gradients();

  // Sum over the chunk of |states after the part - wanted|^2 [tokens, dim]. REQUIRES: no output.
  double distance(const Input& input, std::span<const float> wanted);
  // The same, and adds `weight` times its gradient to the gradients.
  double distance_and_gradient(const Input& input, std::span<const float> wanted, double weight);
  // Sum over the chunk of KL(softmax(teacher) || softmax(logits)), and adds `weight` times its
  // gradient. teacher: logits [tokens, vocab_size]. REQUIRES: output.
  double divergence_and_gradient(const Input& input, const float* teacher, double weight);

 private:
  using Tape = train::Tape<float>;

  kernels::Value run(Tape& tape, const Input& input);
  void look_up(std::span<const int32_t> tokens);
  const train::ParameterLayout::Entry& entry(model::TensorRef ref) const;

  const model::Weights& weights_;
  Part part_;
  kernels::CpuOps cpu_;
  model::Weights shapes_;  // nothing of what lies outside the part
  train::ParameterLayout layout_;
  std::vector<float> values_, gradients_;
  Tape recording_, still_;
};

}  // namespace carat::quantize
