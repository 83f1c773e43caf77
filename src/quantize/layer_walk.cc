#include "quantize/layer_walk.h"

#include <algorithm>
#include <new>
#include <string>

#include "base/checked.h"
#include "base/error.h"

namespace carat::quantize {
namespace {

using kernels::kKvPageTokens;
using kernels::Value;

constexpr std::align_val_t kPageAlignment{64};

// Of a chunk's lists of pages, beside the pages.
constexpr int64_t kBytesOfOwner = 64;

int64_t bytes_of_page(const model::KvLayout& layout, size_t owner) {
  return round_up(layout.layers[owner].page.page_bytes(), int64_t{64});
}

int64_t pages_of(int64_t tokens) { return ceil_div(tokens, kKvPageTokens); }

void free_pages(std::byte* p) { ::operator delete[](p, kPageAlignment); }

std::vector<int64_t> last_users(const model::Config& config) {
  std::vector<int64_t> last(static_cast<size_t>(config.n_owners()));
  for (int64_t i = 0; i < config.n_layers; ++i) {
    last[static_cast<size_t>(config.layer(i).kv_layer)] = i;
  }
  return last;
}

model::Step step_of(std::span<const int32_t> tokens, std::span<const kernels::RowRef> rows,
                    std::span<const int32_t> all) {
  model::Step step;
  step.tokens = tokens;
  step.rows = rows;
  step.wanted = all;
  step.skip = false;
  return step;
}

}  // namespace

LayerWalk::LayerWalk(const model::Weights& weights, std::span<const std::vector<int32_t>> chunks,
                     ThreadPool& pool, const kernels::KernelTable& table,
                     const std::atomic<bool>* stop)
    : config_(weights.config),
      ops_(pool, table),
      stop_(stop),
      layout_(config_, kernels::KvType::kF32),
      last_user_(last_users(config_)) {
  for (const std::vector<int32_t>& tokens : chunks) {
    const auto n = static_cast<int64_t>(tokens.size());
    CHECK(n > 0);
    if (n > config_.max_seq_len) {
      throw Error({"more tokens at a time than the model's context holds",
                   {},
                   {},
                   "at most " + std::to_string(config_.max_seq_len) + " tokens",
                   std::to_string(n),
                   {}});
    }
    Chunk chunk;
    chunk.tokens = tokens;
    for (int32_t i = 0; i < n; ++i) {
      chunk.rows.push_back({0, i});
      chunk.all.push_back(i);
    }
    chunk.pages.resize(last_user_.size());
    for (size_t i = 0; i < last_user_.size(); ++i) chunk.memory.emplace_back(nullptr, free_pages);
    const model::Residual r =
        model::embed(weights, ops_, step_of(chunk.tokens, chunk.rows, chunk.all));
    chunk.x = r.x;
    chunk.embedded = r.embedded;
    tokens_ += n;
    chunks_.push_back(std::move(chunk));
  }
}

int64_t LayerWalk::bytes(const model::Config& config,
                         std::span<const std::vector<int32_t>> chunks) {
  const model::KvLayout layout(config, kernels::KvType::kF32);
  const std::vector<int64_t> last = last_users(config);
  int64_t shared = 0, widest = 0;
  for (size_t owner = 0; owner < last.size(); ++owner) {
    const int64_t page = bytes_of_page(layout, owner);
    widest = std::max(widest, page);
    if (last[owner] > static_cast<int64_t>(owner)) shared += page;
  }
  // A state takes up to 5/4 of its size (kernels/cpu/buffer_pool.h).
  const int64_t state = 5 * config.dim * (config.has_ple() ? 2 : 1);
  const auto per_token = static_cast<int64_t>(sizeof(kernels::RowRef) + sizeof(int32_t));
  const int64_t per_chunk =
      static_cast<int64_t>(sizeof(Chunk)) + static_cast<int64_t>(last.size()) * kBytesOfOwner;
  int64_t bytes = 0;
  for (const std::vector<int32_t>& chunk : chunks) {
    const auto n = static_cast<int64_t>(chunk.size());
    bytes += per_chunk + n * (state + per_token) + pages_of(n) * (shared + widest);
  }
  return bytes;
}

void LayerWalk::prepare_pages(Chunk& chunk, int64_t owner) {
  auto& pages = chunk.pages[static_cast<size_t>(owner)];
  if (!pages.empty()) return;
  const int64_t bytes = bytes_of_page(layout_, static_cast<size_t>(owner));
  const int64_t n = pages_of(static_cast<int64_t>(chunk.rows.size()));
  auto* memory =
      static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes * n), kPageAlignment));
  chunk.memory[static_cast<size_t>(owner)].reset(memory);
  for (int64_t i = 0; i < n; ++i) pages.push_back(memory + i * bytes);
}

Value LayerWalk::run(const model::Weights& weights, kernels::Ops& ops, Chunk& chunk) {
  if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) throw Interrupted();
  const auto owner = static_cast<int64_t>(config_.layer(layer_).kv_layer);
  prepare_pages(chunk, owner);
  kernels::KvLayer kv = layout_.layers[static_cast<size_t>(owner)].page;
  kv.pages = chunk.pages[static_cast<size_t>(owner)];
  model::Step step = step_of(chunk.tokens, chunk.rows, chunk.all);
  step.kv = [&](int64_t) { return std::span<const kernels::KvLayer>(&kv, 1); };
  model::Residual r;
  r.x = chunk.x;
  r.embedded = chunk.embedded;
  r.tokens.assign(chunk.tokens.begin(), chunk.tokens.end());
  r.rows = chunk.rows;
  return model::run_layers(weights, ops, step, std::move(r), layer_, layer_ + 1).x;
}

void LayerWalk::observe(const model::Weights& weights, calibrate::InputObserver& observer) {
  calibrate::ObservedOps observed(ops_, observer);
  for (Chunk& chunk : chunks_) {
    if (layer_ < config_.n_layers) {
      (void)run(weights, observed, chunk);
      continue;
    }
    using model::TensorKind;
    const auto kind = config_.tied_embeddings ? TensorKind::kTokenEmbedding : TensorKind::kLmHead;
    const kernels::Weight& norm = weights.at(TensorKind::kOutputNorm);
    observed.observe(ops_.rms_norm(chunk.x, &norm, config_.dim, config_.norm_eps),
                     weights.at(kind));
  }
}

void LayerWalk::advance(const model::Weights& weights) {
  CHECK(layer_ < config_.n_layers);
  for (Chunk& chunk : chunks_) {
    chunk.x = run(weights, ops_, chunk);
    for (size_t i = 0; i < last_user_.size(); ++i) {
      if (last_user_[i] != layer_) continue;
      chunk.pages[i].clear();
      chunk.memory[i].reset();
    }
  }
  ++layer_;
}

std::span<const float> LayerWalk::embedded(size_t chunk) const {
  const Value& x = chunks_[chunk].embedded;
  return x ? ops_.view(x) : std::span<const float>{};
}

void LayerWalk::keys_and_values(size_t chunk, int64_t owner, std::vector<float>& k,
                                std::vector<float>& v) const {
  CHECK(owner < layer_ && last_user_[static_cast<size_t>(owner)] >= layer_);
  const Chunk& c = chunks_[chunk];
  const kernels::KvLayer& page = layout_.layers[static_cast<size_t>(owner)].page;
  const int64_t n = static_cast<int64_t>(c.rows.size()), width = page.head_dim;
  k.resize(static_cast<size_t>(n * page.n_kv_heads * width));
  v.resize(k.size());
  for (int64_t t = 0; t < n; ++t) {
    const auto* const from = reinterpret_cast<const float*>(
        c.pages[static_cast<size_t>(owner)][static_cast<size_t>(t / kKvPageTokens)]);
    for (int64_t h = 0; h < page.n_kv_heads; ++h) {
      const int64_t at = (h * kKvPageTokens + t % kKvPageTokens) * width;
      const int64_t to = (t * page.n_kv_heads + h) * width;
      std::copy_n(from + at, width, k.begin() + to);
      std::copy_n(from + page.n_kv_heads * kKvPageTokens * width + at, width, v.begin() + to);
    }
  }
}

int64_t memory_beside_states(int64_t memory, std::span<const std::vector<int32_t>> chunks,
                             int64_t walks, const model::Config& config) {
  const int64_t states = walks * LayerWalk::bytes(config, chunks);
  if (states < memory) return memory - states;
  throw Error({"too little memory for the states of the text",
               {},
               "--memory",
               "at least " + std::to_string(states / 1'000'000 + 1) + " MB",
               std::to_string(memory / 1'000'000) + " MB",
               "give it more, or fewer tokens (--max-tokens) in chunks of 64 or more (--context)"});
}

}  // namespace carat::quantize
