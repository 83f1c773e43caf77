#include "engine/session.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "model/forward.h"

namespace carat::engine {
namespace {

void stop_if_asked(const std::atomic<bool>* stop) {
  if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace

Session::Session(const model::Model& model, kernels::Ops& ops, const SessionOptions& options)
    : model_(model),
      ops_(ops),
      kv_(options.kv),
      logit_bytes_(options.logit_bytes),
      limits_(context_limits(model.config(), options.kv, options.context, options.kv_budget,
                             options.chunk)),
      pool_(model::KvPagePool::create(limits_.kv_budget)),
      sequence_(model.config(), options.kv, pool_),
      policy_(restart_policy(model, sequence_.layout())),
      cache_(sequence_.layout()) {
  model::require_kv_type(model.weights, options.kv);
}

void Session::require_room(int64_t n_tokens) const {
  engine::require_room(model_.config(), kv_, limits_, n_tokens);
}

void Session::check_tokens(std::span<const int32_t> tokens) const {
  require_vocabulary(model_.config(), tokens);
  require_room(length() + static_cast<int64_t>(tokens.size()));
}

// Lets go of prefixes if the next n tokens need their memory.
void Session::make_room(int64_t n) {
  sequence_.drop_unseen();
  while (sequence_.bytes_to_prepare(n) > pool_->bytes_free() && cache_.evict()) {
  }
}

kernels::Value Session::run(std::span<const int32_t> tokens, model::Chunk::Wanted wanted) {
  make_room(static_cast<int64_t>(tokens.size()));
  const model::Chunk chunk{&sequence_, tokens, wanted};
  kernels::Value hidden = model::advance_hidden(model_.weights, ops_, std::span(&chunk, 1));
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  cache_.enter(history_, sequence_, place_);
  return hidden;
}

std::span<const float> Session::read(std::span<const int32_t> tokens, const ReadProgress& progress,
                                     const std::atomic<bool>* stop) {
  CHECK(!tokens.empty());
  check_tokens(tokens);
  const auto total = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> restart_at;
  if (total > 1) {
    std::vector<int32_t> all = history_;
    all.insert(all.end(), tokens.begin(), tokens.end());
    restart_at = policy_.in_prompt(all);
  }
  logits_.resize(static_cast<size_t>(vocab_size()));
  // Equal chunks: activations of one size share memory, those of a short last chunk would add some.
  const int64_t chunk = ceil_div(total, ceil_div(total, limits_.chunk));
  for (int64_t at = 0; at < total; at += chunk) {
    stop_if_asked(stop);
    const int64_t n = std::min(chunk, total - at);
    const bool last = at + n == total;
    const kernels::Value hidden =
        run(tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(n)),
            last ? model::Chunk::Wanted::kLast : model::Chunk::Wanted::kNone);
    for (const int64_t position : restart_at) {
      if (position <= length() - n || position > length()) continue;
      cache_.add_restart_point(history_, position, sequence_, place_);
    }
    if (last) ops_.read(model::logits_of(model_.weights, ops_, hidden), logits_);
    if (progress) progress(at + n, total);
  }
  return logits_;
}

void Session::read_all(std::span<const int32_t> tokens, const LogitRows& rows,
                       const ReadProgress& progress, const std::atomic<bool>* stop) {
  check_tokens(tokens);
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t fitting = std::max<int64_t>(1, logit_bytes_ / (4 * vocab_size()));
  std::vector<int32_t> indices;
  for (int64_t at = 0; at < total;) {
    stop_if_asked(stop);
    const int64_t n = std::min(limits_.chunk, total - at), position = length();
    const kernels::Value hidden =
        run(tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(n)),
            model::Chunk::Wanted::kAll);
    // All layers read the chunk at once; only the output matrix takes few rows at a time.
    for (int64_t first = 0; first < n;) {
      stop_if_asked(stop);
      indices.resize(static_cast<size_t>(std::min(fitting, n - first)));
      std::iota(indices.begin(), indices.end(), static_cast<int32_t>(first));
      const auto count = static_cast<int64_t>(indices.size());
      logits_.resize(static_cast<size_t>(count * vocab_size()));
      ops_.read(model::logits_of(model_.weights, ops_, ops_.take_rows(hidden, indices)), logits_);
      rows(position + first, count, logits_);
      first += count;
      if (progress) progress(at + first, total);
    }
    at += n;
  }
}

int64_t Session::start(std::span<const int32_t> tokens) {
  CHECK(!tokens.empty());
  const std::span<const int32_t> most = tokens.first(tokens.size() - 1);
  const bool goes_on =
      history_.size() <= most.size() && std::equal(history_.begin(), history_.end(), most.begin());
  if (!goes_on && length() > 0) {
    cache_.add_restart_point(history_, length(), sequence_, place_);
  }
  const int64_t reused = cache_.take_up(most, goes_on ? length() : 0, sequence_, place_);
  if (reused > 0) {
    history_.assign(most.begin(), most.begin() + reused);
  } else if (!goes_on) {
    cache_.leave(place_);
    sequence_.clear();
    history_.clear();
  }
  return length();
}

void Session::clear() {
  cache_.leave(place_);
  cache_.clear();
  sequence_.clear();
  history_.clear();
}

}  // namespace carat::engine
