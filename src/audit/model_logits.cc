#include "audit/model_logits.h"

#include <algorithm>

#include "base/error.h"
#include "model/advance.h"

namespace carat::audit {
namespace {

int64_t checked_budget(const model::Model& model, kernels::KvType kv, int64_t context) {
  const int64_t longest = model.config().max_seq_len;
  if (context > longest) {
    throw Error({"more tokens than the model's context holds",
                 model.path,
                 {},
                 "at most " + std::to_string(longest) + " tokens",
                 std::to_string(context),
                 {}});
  }
  return model::kv_bytes(model.config(), kv, context,
                         ModelLogits::step_for(model.config().vocab_size));
}

}  // namespace

ModelLogits::ModelLogits(const model::Model& model, kernels::KvType kv, int64_t context,
                         ThreadPool& pool, const kernels::KernelTable& table)
    : model_(model),
      ops_(pool, table),
      sequence_(model.config(), kv, model::KvPagePool::create(checked_budget(model, kv, context))) {
}

int64_t ModelLogits::step_for(int64_t vocab_size) {
  return std::clamp<int64_t>((int64_t{16} << 20) / vocab_size, 1, 256);
}

void ModelLogits::read(std::span<const int32_t> tokens, std::span<float> logits) {
  const auto n = static_cast<int64_t>(tokens.size());
  CHECK(static_cast<int64_t>(logits.size()) == n * vocab_size());
  const model::Chunk chunk{&sequence_, tokens, model::Chunk::Wanted::kAll};
  ops_.read(model::advance(model_.weights, ops_, std::span(&chunk, 1)), logits);
}

}  // namespace carat::audit
