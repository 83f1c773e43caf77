#include "audit/streamed.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <unordered_map>

#include "base/checked.h"
#include "base/error.h"

namespace carat::audit {
namespace {

using kernels::kKvPageTokens;

constexpr std::align_val_t kPageAlignment{64};

void free_pages(std::byte* p) { ::operator delete[](p, kPageAlignment); }

int64_t bytes_of(const std::vector<const io::TensorEntry*>& entries) {
  int64_t bytes = 0;
  for (const io::TensorEntry* e : entries) bytes += e->bytes;
  return bytes;
}

}  // namespace

StreamedLogits::StreamedLogits(const model::Model& model, const Options& options, int64_t context,
                               ThreadPool& pool, const kernels::KernelTable& table)
    : model_(model), options_(options), ops_(pool, table), layout_(model.config(), options.kv) {
  model::require_kv_type(model.weights, options.kv);
  if (options_.name.empty()) options_.name = model.path;
  const model::Config& config = model.config();
  last_user_.resize(static_cast<size_t>(config.n_owners()));
  for (int64_t i = 0; i < config.n_layers; ++i) {
    last_user_[static_cast<size_t>(config.layer(i).kv_layer)] = i;
  }
  find_entries();
  plan_memory(context);
}

void StreamedLogits::find_entries() {
  const model::Weights& weights = model_.weights;
  entries_.resize(static_cast<size_t>(weights.config.n_layers) + 1);
  if (model_.source == nullptr) return;  // weights that come from no file
  std::unordered_map<const void*, size_t> by_place;
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const kernels::Weight& w = weights.all[i];
    if (w.data != nullptr && w.layout == kernels::Layout::kRows) by_place[w.data] = i;
  }
  for (const io::TensorEntry& entry : model_.source->entries()) {
    const std::byte* data = nullptr;
    try {
      data = model_.source->view(entry).data;
    } catch (const Error&) {
      continue;  // has no mapping: was copied
    }
    const auto found = by_place.find(data);
    if (found == by_place.end()) continue;
    const int64_t layer = weights.refs[found->second].layer;
    const auto slot = layer < 0 ? entries_.size() - 1 : static_cast<size_t>(layer);
    entries_[slot].push_back(&entry);
  }
}

void StreamedLogits::plan_memory(int64_t context) {
  const model::Config& config = model_.config();
  int64_t weights = 0;  // most that are in use at a time
  for (const auto& entries : entries_) weights = std::max(weights, bytes_of(entries));
  // A position's state, its embedding, and K and V of the layer at work and of those shared.
  int64_t position = config.dim * 4 * (config.has_ple() ? 2 : 1);
  int64_t widest = 0;
  for (size_t owner = 0; owner < last_user_.size(); ++owner) {
    const int64_t bytes = ceil_div(layout_.layers[owner].page.page_bytes(), kKvPageTokens);
    widest = std::max(widest, bytes);
    if (last_user_[owner] > static_cast<int64_t>(owner)) position += bytes;
  }
  position += widest;
  // What a step computes beside that: logits of some rows, and the layers' inner values.
  const int64_t work =
      rows_at_once() * config.vocab_size * 4 +
      context * 4 * (8 * config.dim + 4 * config.layer(config.n_layers - 1).ffn_dim);
  const int64_t least = weights + work + round_up(context, kKvPageTokens) * position;
  if (least > options_.memory) {
    throw Error({"too little memory to run the model layer by layer",
                 options_.name,
                 "--memory",
                 "at least " + std::to_string(least / 1'000'000 + 1) + " MB",
                 std::to_string(options_.memory / 1'000'000) + " MB",
                 {}});
  }
  tokens_at_once_ = (options_.memory - weights - work) / position;
}

bool StreamedLogits::has_ridden(const Chunk& chunk) const {
  return std::any_of(batch_.begin(), batch_.end(),
                     [&](const Passenger& p) { return p.chunk == &chunk; });
}

void StreamedLogits::look_ahead(std::span<const Chunk* const> coming) {
  if (coming.empty() || has_ridden(*coming.front())) return;
  current_ = nullptr;
  batch_.clear();
  int64_t tokens = 0;
  for (const Chunk* chunk : coming) {
    // The last token is only predicted. Pages are whole.
    const auto n = static_cast<int64_t>(chunk->tokens.size()) - 1;
    tokens += round_up(n, kKvPageTokens);
    if (tokens > tokens_at_once_ && !batch_.empty()) break;
    Passenger p;
    p.chunk = chunk;
    for (int64_t i = 0; i < n; ++i) p.rows.push_back({0, static_cast<int32_t>(i)});
    p.pages.resize(last_user_.size());
    for (size_t owner = 0; owner < last_user_.size(); ++owner) {
      p.memory.emplace_back(nullptr, free_pages);
    }
    batch_.push_back(std::move(p));
  }
  run_batch();
}

void StreamedLogits::run_batch() {
  const model::Config& config = model_.config();
  release_weights(config.n_layers);
  int64_t tokens = 0;
  for (Passenger& p : batch_) {
    model::Step step;
    step.tokens = std::span(p.chunk->tokens).first(p.rows.size());
    step.rows = p.rows;
    p.residual = model::embed(model_.weights, ops_, step);
    tokens += static_cast<int64_t>(p.rows.size());
  }
  want_weights(0);
  for (int64_t layer = 0; layer < config.n_layers; ++layer) {
    if (options_.progress) options_.progress(layer, config.n_layers, tokens);
    want_weights(layer + 1);
    for (Passenger& p : batch_) {
      if (options_.stop && options_.stop->load(std::memory_order_relaxed)) {
        batch_.clear();
        throw Interrupted();
      }
      run_layer(layer, p);
    }
    release_weights(layer);
  }
  for (Passenger& p : batch_) {
    p.residual.embedded.reset();
    CHECK(p.residual.reduced);  // only the compared rows are left
  }
}

void StreamedLogits::prepare_pages(int64_t owner, Passenger& p) const {
  auto& pages = p.pages[static_cast<size_t>(owner)];
  if (!pages.empty()) return;
  const int64_t bytes =
      round_up(layout_.layers[static_cast<size_t>(owner)].page.page_bytes(), int64_t{64});
  const int64_t n = ceil_div(static_cast<int64_t>(p.rows.size()), kKvPageTokens);
  auto* memory =
      static_cast<std::byte*>(::operator new[](static_cast<size_t>(bytes * n), kPageAlignment));
  p.memory[static_cast<size_t>(owner)].reset(memory);
  for (int64_t i = 0; i < n; ++i) pages.push_back(memory + i * bytes);
}

void StreamedLogits::run_layer(int64_t layer, Passenger& p) {
  const auto owner = static_cast<int64_t>(model_.config().layer(layer).kv_layer);
  prepare_pages(owner, p);
  kernels::KvLayer kv = layout_.layers[static_cast<size_t>(owner)].page;
  kv.pages = p.pages[static_cast<size_t>(owner)];
  model::Step step;
  step.tokens = std::span(p.chunk->tokens).first(p.rows.size());
  step.rows = p.rows;
  step.wanted = p.chunk->compared;
  step.kv = [&](int64_t) { return std::span<const kernels::KvLayer>(&kv, 1); };
  p.residual =
      model::run_layers(model_.weights, ops_, step, std::move(p.residual), layer, layer + 1);
  for (size_t i = 0; i < last_user_.size(); ++i) {
    if (last_user_[i] != layer) continue;
    p.pages[i].clear();
    p.memory[i].reset();
  }
}

void StreamedLogits::want_weights(int64_t layer) const {
  for (const io::TensorEntry* e : entries_[static_cast<size_t>(layer)]) {
    const auto begin = reinterpret_cast<uintptr_t>(model_.source->view(*e).data) & ~uintptr_t{4095};
    const auto end =
        reinterpret_cast<uintptr_t>(model_.source->view(*e).data) + static_cast<size_t>(e->bytes);
    // Begins to read from the disk while the layer before is at work; only advice.
    ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
  }
}

void StreamedLogits::release_weights(int64_t layer) const {
  for (const io::TensorEntry* e : entries_[static_cast<size_t>(layer)]) {
    model_.source->release(*e, 0, e->bytes);
  }
}

void StreamedLogits::start(std::span<const int32_t> tokens) {
  current_ = nullptr;
  for (const Passenger& p : batch_) {
    const auto& own = p.chunk->tokens;
    if (tokens.size() <= own.size() && std::equal(tokens.begin(), tokens.end(), own.begin())) {
      current_ = &p;
      return;
    }
  }
  CHECK(!"look_ahead() announced these tokens");
}

void StreamedLogits::extend(std::span<const int32_t>) {
  throw Error({"a model that is run layer by layer does not continue texts",
               options_.name,
               {},
               {},
               {},
               "leave out --greedy, or give it the memory to be loaded"});
}

void StreamedLogits::read(std::span<const int32_t> rows, std::span<float> logits) {
  CHECK(current_ != nullptr);
  const std::vector<int32_t>& compared = current_->chunk->compared;
  std::vector<int32_t> here;
  for (const int32_t row : rows) {
    const auto found = std::lower_bound(compared.begin(), compared.end(), row);
    CHECK(found != compared.end() && *found == row);
    here.push_back(static_cast<int32_t>(found - compared.begin()));
  }
  ops_.read(model::logits_of(model_.weights, ops_, ops_.take_rows(current_->residual.x, here)),
            logits);
}

}  // namespace carat::audit
