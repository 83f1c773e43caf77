// A loaded model as a source of logits for the tokens it reads.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "audit/logit_source.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_cache.h"
#include "model/load.h"

namespace carat::audit {

class ModelLogits final : public LogitSource {
 public:
  struct Options {
    kernels::KvType kv = kernels::KvType::kF32;
    int64_t context = 512;  // most tokens that will be read after a start; K/V memory for them
    int64_t step = 256;     // tokens in one pass; the logits do not depend on it
    std::string name;       // for messages; empty: the model's path
  };
  // `model`, `pool` and `table` outlive it. Throws Error if the model cannot hold so many tokens.
  ModelLogits(const model::Model& model, const Options& options, ThreadPool& pool,
              const kernels::KernelTable& table);

  const std::string& name() const override { return options_.name; }
  int64_t vocab_size() const override { return model_.config().vocab_size; }
  int64_t max_context() const override { return model_.config().max_seq_len; }
  // REQUIRES: every token in [0, vocab_size()); no more than `context` since the last start.
  void start(std::span<const int32_t> tokens) override;
  void extend(std::span<const int32_t> tokens) override;
  void read(std::span<const int32_t> rows, std::span<float> logits) override;

 private:
  // Reads the next step of tokens.
  void advance();

  const model::Model& model_;
  Options options_;
  kernels::CpuOps ops_;
  model::KvSequence sequence_;
  std::vector<int32_t> tokens_;
  // What the tokens of the last step are after the last layer, from this place on.
  kernels::Value hidden_;
  int64_t hidden_begin_ = 0;
};

}  // namespace carat::audit
