// A loaded model as a source of logits for every token it reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "audit/audit.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_cache.h"
#include "model/load.h"

namespace carat::audit {

class ModelLogits final : public LogitSource {
 public:
  // `model`, `pool` and `table` outlive it. `context`: most tokens that will be read after a
  // restart; its K/V memory is the budget. Throws Error if the model cannot hold so many.
  ModelLogits(const model::Model& model, kernels::KvType kv, int64_t context, ThreadPool& pool,
              const kernels::KernelTable& table);

  const std::string& name() const override { return model_.path; }
  int64_t vocab_size() const override { return model_.config().vocab_size; }
  int64_t max_context() const override { return model_.config().max_seq_len; }
  void restart() override { sequence_.clear(); }
  // REQUIRES: every token in [0, vocab_size()); no more than `context` since the last restart.
  void read(std::span<const int32_t> tokens, std::span<float> logits) override;

  // Their logits take at most 64 MB.
  int64_t step() const override { return step_for(vocab_size()); }
  static int64_t step_for(int64_t vocab_size);

 private:
  const model::Model& model_;
  kernels::CpuOps ops_;
  model::KvSequence sequence_;
};

}  // namespace carat::audit
