// A text on its way through a model's layers, one layer at a time over all of it: methods that
// settle a layer before they come to the next take its inputs from here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "calibrate/observed_ops.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace carat::quantize {

// Between layers it holds what every token is there (4 dim bytes a token, twice that beside
// per-layer embeddings), and K and V in float32 of layers that others share, in pages that hold 64
// tokens of one chunk, few as it may have. Used by one thread.
// Results do not depend on the number of threads.
class LayerWalk {
 public:
  // Everything outlives it. Stands before layer 0, the embeddings looked up with `weights`.
  // REQUIRES: no chunk is empty. Throws Error if a chunk is longer than the model's context.
  LayerWalk(const model::Weights& weights, std::span<const std::vector<int32_t>> chunks,
            ThreadPool& pool, const kernels::KernelTable& table,
            const std::atomic<bool>* stop = nullptr);

  int64_t layer() const { return layer_; }  // the next to run, n_layers at the end
  int64_t tokens() const { return tokens_; }
  // Bytes that a walk over such chunks holds at most, beside those of a step.
  static int64_t bytes(const model::Config& config, std::span<const std::vector<int32_t>> chunks);

  // Runs the layer over all chunks and shows the inputs of its products; stays before it. At the
  // end, the output matrix's input is shown instead.
  // Weights may differ from call to call: what counts is each call's own.
  void observe(const model::Weights& weights, calibrate::InputObserver& observer);
  // Runs it for good.
  void advance(const model::Weights& weights);

  // What the tokens of a chunk are before the layer, [tokens, dim].
  std::span<const float> states(size_t chunk) const { return ops_.view(chunks_[chunk].x); }
  // Their embeddings as they feed the per-layer inputs, [tokens, dim]; empty if there are none.
  std::span<const float> embedded(size_t chunk) const;
  // K and V of a layer that owns them, [tokens, n_kv_heads * head_dim] each. REQUIRES: it was run
  // for good, and a layer that is yet to run reads them.
  void keys_and_values(size_t chunk, int64_t owner, std::vector<float>& k,
                       std::vector<float>& v) const;

 private:
  struct Chunk {
    std::span<const int32_t> tokens;
    std::vector<kernels::RowRef> rows;
    std::vector<int32_t> all;  // indices of all rows
    kernels::Value x, embedded;
    std::vector<std::vector<std::byte*>> pages;  // [owner]; empty: given back, or not yet there
    std::vector<std::unique_ptr<std::byte[], void (*)(std::byte*)>> memory;  // [owner]
  };
  kernels::Value run(const model::Weights& weights, kernels::Ops& ops, Chunk& chunk);
  void prepare_pages(Chunk& chunk, int64_t owner);

  const model::Config& config_;
  kernels::CpuOps ops_;
  const std::atomic<bool>* stop_;
  model::KvLayout layout_;
  std::vector<int64_t> last_user_;  // [owner] last layer that reads its K and V
  std::vector<Chunk> chunks_;
  int64_t layer_ = 0, tokens_ = 0;
};

// What is left of `memory` bytes beside so many walks over the chunks. Throws Error, naming
// --memory, if nothing is.
[[nodiscard]] int64_t memory_beside_states(int64_t memory,
                                           std::span<const std::vector<int32_t>> chunks,
                                           int64_t walks, const model::Config& config);

}  // namespace carat::quantize
