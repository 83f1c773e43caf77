#include "audit/model_logits.h"

#include <algorithm>

#include "base/error.h"
#include "model/advance.h"
#include "model/forward.h"

namespace carat::audit {
namespace {

int64_t checked_budget(const model::Model& model, const ModelLogits::Options& options) {
  const int64_t longest = model.config().max_seq_len;
  if (options.context > longest) {
    throw Error({"more tokens than the model's context holds",
                 model.path,
                 {},
                 "at most " + std::to_string(longest) + " tokens",
                 std::to_string(options.context),
                 {}});
  }
  return model::kv_bytes(model.config(), options.kv, options.context, options.step);
}

}  // namespace

ModelLogits::ModelLogits(const model::Model& model, const Options& options, ThreadPool& pool,
                         const kernels::KernelTable& table)
    : model_(model),
      options_(options),
      ops_(pool, table),
      sequence_(model.config(), options.kv,
                model::KvPagePool::create(checked_budget(model, options))) {
  CHECK(options.step >= 1);
  model::require_kv_type(model.weights, options.kv);
  if (options_.name.empty()) options_.name = model.path;
}

void ModelLogits::start(std::span<const int32_t> tokens) {
  sequence_.clear();
  hidden_.reset();
  hidden_begin_ = 0;
  tokens_.assign(tokens.begin(), tokens.end());
}

void ModelLogits::extend(std::span<const int32_t> tokens) {
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void ModelLogits::advance() {
  const int64_t begin = sequence_.length();
  const int64_t n = std::min(options_.step, static_cast<int64_t>(tokens_.size()) - begin);
  CHECK(n > 0);
  hidden_.reset();
  const model::Chunk chunk{
      &sequence_, std::span(tokens_).subspan(static_cast<size_t>(begin), static_cast<size_t>(n)),
      model::Chunk::Wanted::kAll};
  hidden_ = model::advance_hidden(model_.weights, ops_, std::span(&chunk, 1));
  hidden_begin_ = begin;
}

void ModelLogits::read(std::span<const int32_t> rows, std::span<float> logits) {
  const auto vocab = static_cast<size_t>(vocab_size());
  CHECK(logits.size() == rows.size() * vocab);
  for (size_t done = 0; done < rows.size();) {
    if (!hidden_ || rows[done] >= sequence_.length()) {
      advance();
      continue;
    }
    CHECK(rows[done] >= hidden_begin_);
    std::vector<int32_t> here;
    while (done + here.size() < rows.size() && rows[done + here.size()] < sequence_.length()) {
      here.push_back(rows[done + here.size()] - static_cast<int32_t>(hidden_begin_));
    }
    const kernels::Value value =
        model::logits_of(model_.weights, ops_, ops_.take_rows(hidden_, here));
    ops_.read(value, logits.subspan(done * vocab, here.size() * vocab));
    done += here.size();
  }
}

}  // namespace carat::audit
