#include "engine/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace carat::engine {
namespace {

constexpr int64_t kMaxChunk = 1 << 16;
constexpr int64_t kMaxLogitBytes = int64_t{64} << 20;

SessionOptions checked(const model::Config& config, SessionOptions o) {
  if (o.context < 0 || o.context > config.max_seq_len) {
    throw Error({"the context is longer than the model was trained for", "", "context",
                 fmt::format("1 to {} tokens", config.max_seq_len),
                 fmt::format("{} tokens", o.context), ""});
  }
  if (o.context == 0) o.context = config.max_seq_len;
  if (o.chunk < 1 || o.chunk > kMaxChunk) {
    throw Error({"the number of tokens in a chunk is out of range", "", "chunk",
                 fmt::format("1 to {}", kMaxChunk), fmt::format("{}", o.chunk), ""});
  }
  if (o.kv_budget < 0) throw Error("the memory for the context is negative");
  o.chunk = std::min(o.chunk, o.context);
  return o;
}

// Most tokens whose keys and values fit the budget.
int64_t fitting_tokens(const model::Config& config, const SessionOptions& o) {
  if (o.kv_budget == 0 || model::kv_bytes(config, o.kv, o.context, o.chunk) <= o.kv_budget) {
    return o.context;
  }
  int64_t fits = 0, too_many = o.context;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (model::kv_bytes(config, o.kv, middle, o.chunk) <= o.kv_budget ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace

Session::Session(const model::Model& model, kernels::Ops& ops, const SessionOptions& options)
    : model_(model),
      ops_(ops),
      options_(checked(model.config(), options)),
      capacity_(fitting_tokens(model.config(), options_)),
      pool_(model::KvPagePool::create(
          options_.kv_budget > 0
              ? options_.kv_budget
              : model::kv_bytes(model.config(), options_.kv, options_.context, options_.chunk))),
      sequence_(model.config(), options_.kv, pool_) {}

void Session::require_room(int64_t n_tokens) const {
  if (n_tokens <= capacity_) return;
  if (n_tokens > options_.context) {
    throw Error({"the prompt is longer than the context", "", "prompt",
                 fmt::format("at most {} tokens", options_.context),
                 fmt::format("{} tokens", n_tokens),
                 options_.context < model_.config().max_seq_len
                     ? fmt::format("the model takes up to {} tokens; allow a longer context",
                                   model_.config().max_seq_len)
                     : "shorten the prompt"});
  }
  const int64_t need = model::kv_bytes(model_.config(), options_.kv, n_tokens, options_.chunk);
  throw Error({"the prompt needs more memory than is allowed", "", "prompt",
               fmt::format("{:.1f} MB ({} tokens)", static_cast<double>(options_.kv_budget) / 1e6,
                           capacity_),
               fmt::format("{:.1f} MB ({} tokens)", static_cast<double>(need) / 1e6, n_tokens),
               "shorten the prompt, or keep keys and values in a smaller type"});
}

void Session::check_tokens(std::span<const int32_t> tokens) const {
  const int64_t vocab = vocab_size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 && tokens[i] < vocab) continue;
    throw Error({"no such token", "", fmt::format("token {}", i), fmt::format("0 to {}", vocab - 1),
                 fmt::format("{}", tokens[i]), ""});
  }
  require_room(length() + static_cast<int64_t>(tokens.size()));
}

kernels::Value Session::run(std::span<const int32_t> tokens, model::Chunk::Wanted wanted) {
  const model::Chunk chunk{&sequence_, tokens, wanted};
  kernels::Value logits = model::advance(model_.weights, ops_, std::span(&chunk, 1));
  history_.insert(history_.end(), tokens.begin(), tokens.end());
  return logits;
}

std::span<const float> Session::read(std::span<const int32_t> tokens, const ReadProgress& progress,
                                     const std::atomic<bool>* stop) {
  CHECK(!tokens.empty());
  check_tokens(tokens);
  const auto total = static_cast<int64_t>(tokens.size());
  logits_.resize(static_cast<size_t>(vocab_size()));
  for (int64_t at = 0; at < total; at += options_.chunk) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Interrupted();
    const int64_t n = std::min(options_.chunk, total - at);
    const bool last = at + n == total;
    const kernels::Value logits =
        run(tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(n)),
            last ? model::Chunk::Wanted::kLast : model::Chunk::Wanted::kNone);
    if (last) ops_.read(logits, logits_);
    if (progress) progress(at + n, total);
  }
  return logits_;
}

void Session::read_all(std::span<const int32_t> tokens, const LogitRows& rows,
                       const ReadProgress& progress, const std::atomic<bool>* stop) {
  check_tokens(tokens);
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t fitting = std::max<int64_t>(1, kMaxLogitBytes / (4 * vocab_size()));
  const int64_t step = std::min(options_.chunk, fitting);
  for (int64_t at = 0; at < total; at += step) {
    if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Interrupted();
    const auto n = static_cast<size_t>(std::min(step, total - at));
    const int64_t position = length();
    const kernels::Value logits =
        run(tokens.subspan(static_cast<size_t>(at), n), model::Chunk::Wanted::kAll);
    logits_.resize(n * static_cast<size_t>(vocab_size()));
    ops_.read(logits, logits_);
    rows(position, static_cast<int64_t>(n), logits_);
    if (progress) progress(at + static_cast<int64_t>(n), total);
  }
}

void Session::clear() {
  sequence_.clear();
  history_.clear();
}

}  // namespace carat::engine
