// A model larger than memory as a source of logits: its layers are run one after the other, each
// over many chunks of text, so that a layer's weights are read once for all of them.
//
// look_ahead() takes as many of the coming chunks as the memory allows, and keeps what their
// compared tokens are after the last layer (4 bytes times the width each); logits are made of that
// when they are asked for. The results are those of ModelLogits, bit for bit.
//
// Weights stay in the file's mapping and are given back to the system after each layer; those that
// a load copies to memory anyway (codes of mobile checkpoints, experts that a file holds one by
// one) stay there.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "audit/logit_source.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/load.h"

namespace carat::audit {

class StreamedLogits final : public LogitSource {
 public:
  struct Options {
    kernels::KvType kv = kernels::KvType::kF32;
    // Bytes that weights in use, states, keys and values may take together.
    int64_t memory = int64_t{4} << 30;
    std::string name;  // for messages; empty: the model's path
    std::function<void(int64_t layer, int64_t layers, int64_t tokens)> progress;  // may be empty
    const std::atomic<bool>* stop = nullptr;  // Interrupted is thrown between layers' chunks
  };
  // `model`, loaded without packing, `pool` and `table` outlive it. Throws Error if the memory does
  // not hold the largest part of the model and one chunk of `context` tokens.
  StreamedLogits(const model::Model& model, const Options& options, int64_t context,
                 ThreadPool& pool, const kernels::KernelTable& table);

  const std::string& name() const override { return options_.name; }
  int64_t vocab_size() const override { return model_.config().vocab_size; }
  int64_t max_context() const override { return model_.config().max_seq_len; }
  void look_ahead(std::span<const Chunk* const> coming) override;
  // REQUIRES: the tokens are the beginning of a chunk of the last look_ahead(), coming[0] above
  // all.
  void start(std::span<const int32_t> tokens) override;
  // Throws Error: every token more would take all of the layers again.
  void extend(std::span<const int32_t> tokens) override;
  // REQUIRES: rows that the chunk compares.
  void read(std::span<const int32_t> rows, std::span<float> logits) override;

  int64_t tokens_at_once() const { return tokens_at_once_; }

 private:
  // A chunk that is on its way through the layers, or has arrived.
  struct Passenger {
    const Chunk* chunk = nullptr;
    std::vector<kernels::RowRef> rows;
    model::Residual residual;
    std::vector<std::vector<std::byte*>> pages;  // [owner]; empty: given back, or not yet there
    std::vector<std::unique_ptr<std::byte[], void (*)(std::byte*)>> memory;  // [owner]
  };
  void run_batch();
  void run_layer(int64_t layer, Passenger& p);
  void prepare_pages(int64_t owner, Passenger& p) const;
  void release_weights(int64_t layer) const;
  void want_weights(int64_t layer) const;
  void plan_memory(int64_t context);
  void find_entries();
  bool has_ridden(const Chunk& chunk) const;

  const model::Model& model_;
  Options options_;
  kernels::CpuOps ops_;
  model::KvLayout layout_;
  std::vector<int64_t> last_user_;  // [owner] last layer that reads its K and V
  // Mapped weights of each layer, [n_layers]; the last: those of no layer that products read.
  std::vector<std::vector<const io::TensorEntry*>> entries_;
  int64_t tokens_at_once_ = 0;
  std::vector<Passenger> batch_;
  const Passenger* current_ = nullptr;
};

}  // namespace carat::audit
