#include "audit/model_logits.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "model/forward.h"

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
  sequence_.prepare(n);
  const model::KvSequence* const sequences[] = {&sequence_};
  const model::KvBatch batch(model_.config(), sequences);
  std::vector<kernels::RowRef> rows;
  for (int64_t i = 0; i < n; ++i) {
    rows.push_back({.sequence = 0, .position = static_cast<int32_t>(sequence_.length() + i)});
  }
  std::vector<int32_t> wanted(tokens.size());
  std::iota(wanted.begin(), wanted.end(), 0);
  const model::Step step{
      .tokens = tokens, .rows = rows, .wanted = wanted, .kv = [&](int64_t layer) {
        return batch.layer(layer);
      }};
  const kernels::Value result = model::forward(model_.weights, ops_, step);
  ops_.read(result, logits);
  sequence_.advance(n);
}

}  // namespace carat::audit
