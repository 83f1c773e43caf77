#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "model/weights.h"

namespace carat::model {
namespace {

using kernels::kKvPageTokens;

constexpr int64_t kAlignment = 64;

void free_bytes(std::byte* p) { std::free(p); }

}  // namespace

void require_kv_type(const Weights& weights, kernels::KvType type) {
  if (weights.kv_scales.empty() || !kernels::is_kv4(type)) return;
  throw Error({"the checkpoint states 8-bit scales of its keys and values", "", "--kv",
               "int8, f16 or f32", type == kernels::KvType::kI4R ? "int4r" : "int4",
               "leave out --kv: int8 holds exactly what this model was trained with"});
}

KvLayout::KvLayout(const Config& config, kernels::KvType type) {
  for (int64_t i = 0; i < config.n_owners(); ++i) {
    const LayerConfig l = config.layer(i);
    Layer layer;
    layer.is_local = l.window > 0;
    layer.page.type = type;
    layer.page.n_kv_heads = l.n_kv_heads;
    layer.page.head_dim = l.head_dim;
    CHECK(!layer.is_local || window == 0 || window == l.window);
    if (layer.is_local) window = l.window;
    int64_t& bytes = layer.is_local ? local_bytes : global_bytes;
    layer.offset = bytes;
    bytes = add_or_throw(bytes, round_up(layer.page.page_bytes(), kAlignment), "context memory");
    layers.push_back(layer);
  }
}

int64_t KvLayout::first_visible(int64_t position) const {
  return std::max<int64_t>(0, position - window + 1);
}

KvBlock::KvBlock(std::shared_ptr<KvPagePool> pool, std::byte* data, int64_t bytes)
    : pool_(std::move(pool)), data_(data), bytes_(bytes) {}

KvBlock::~KvBlock() { pool_->give_back(data_, bytes_); }

std::shared_ptr<KvPagePool> KvPagePool::create(int64_t budget) {
  CHECK(budget >= 0);
  return std::shared_ptr<KvPagePool>(new KvPagePool(budget));
}

KvPagePool::FreeList& KvPagePool::list_for(int64_t bytes) {
  for (FreeList& f : free_) {
    if (f.bytes == bytes) return f;
  }
  free_.push_back({bytes, {}});
  return free_.back();
}

void KvPagePool::drop_pages_at_rest() {
  for (FreeList& f : free_) f.pages.clear();
  at_rest_ = 0;
}

KvBlockRef KvPagePool::take(int64_t bytes) {
  CHECK(bytes > 0);
  FreeList& list = list_for(bytes);
  std::byte* page = nullptr;
  if (!list.pages.empty()) {
    page = list.pages.back().release();
    list.pages.pop_back();
    at_rest_ -= bytes;
  } else {
    if (in_use_ + at_rest_ + bytes > budget_) drop_pages_at_rest();
    if (in_use_ + bytes > budget_) {
      throw Error({"the memory set aside for the context is used up", "", "",
                   fmt::format("at most {} bytes", budget_),
                   fmt::format("{} bytes and another page of {}", in_use_, bytes),
                   "use a shorter context, a smaller KV type, or allow more memory"});
    }
    const int64_t rounded = round_up(bytes, kAlignment);
    page = static_cast<std::byte*>(std::aligned_alloc(kAlignment, static_cast<size_t>(rounded)));
    if (page == nullptr) throw Error("out of memory for the context");
    std::memset(page, 0, static_cast<size_t>(bytes));
  }
  std::unique_ptr<std::byte, void (*)(std::byte*)> held(page, &free_bytes);
  std::unique_ptr<KvBlock> block(new KvBlock(shared_from_this(), page, bytes));
  (void)held.release();  // the block gives it back from here on
  in_use_ += bytes;
  peak_ = std::max(peak_, in_use_);
  return block;
}

void KvPagePool::give_back(std::byte* page, int64_t bytes) {
  in_use_ -= bytes;
  at_rest_ += bytes;
  list_for(bytes).pages.emplace_back(page, &free_bytes);
}

KvSequence::KvSequence(const Config& config, kernels::KvType type, std::shared_ptr<KvPagePool> pool)
    : layout_(config, type),
      type_(type),
      pool_(std::move(pool)),
      local_{true, layout_.local_bytes, {}},
      global_{false, layout_.global_bytes, {}},
      pointers_(layout_.layers.size()) {}

// Holds `block` as page `page`, the one after the last included.
void KvSequence::put(Side& side, int64_t page, KvBlockRef block) {
  const auto at = static_cast<size_t>(page);
  CHECK(at <= side.blocks.size());
  if (at == side.blocks.size()) side.blocks.emplace_back();
  KvBlockRef& place = side.blocks[at];
  if (block && ++block->sequences_ == 1) pool_->in_sequences_ += block->bytes_;
  if (place && --place->sequences_ == 0) pool_->in_sequences_ -= place->bytes_;
  place = std::move(block);
  for (size_t i = 0; i < pointers_.size(); ++i) {
    const KvLayout::Layer& layer = layout_.layers[i];
    if (layer.is_local != side.is_local) continue;
    if (at == pointers_[i].size()) pointers_[i].emplace_back();
    pointers_[i][at] = place ? place->data_ + layer.offset : nullptr;
  }
}

void KvSequence::drop_unseen() {
  const int64_t seen = layout_.first_visible(length_) / kKvPageTokens;
  const int64_t end = std::min(seen, static_cast<int64_t>(local_.blocks.size()));
  for (; first_local_ < end; ++first_local_) put(local_, first_local_, nullptr);
}

// Whether the rows after the last position are somebody else's.
bool KvSequence::tail_is_taken(const Side& side) const {
  const int64_t rows = length_ % kKvPageTokens;
  if (rows == 0 || claimed_ > length_ || side.bytes == 0) return false;
  const KvBlockRef& tail = side.blocks[static_cast<size_t>(length_ / kKvPageTokens)];
  return tail->rows_ > rows && tail.use_count() > 1;
}

// Makes the rows after the last position this sequence's to write.
void KvSequence::own_tail(Side& side) {
  const int64_t rows = length_ % kKvPageTokens, page = length_ / kKvPageTokens;
  if (rows == 0 || claimed_ > length_ || side.bytes == 0) return;
  const KvBlockRef tail = side.blocks[static_cast<size_t>(page)];
  if (tail->rows_ <= rows) return;
  if (tail.use_count() > 2) {  // this handle and that in the list are ours
    KvBlockRef copy = pool_->take(side.bytes);
    std::memcpy(copy->data_, tail->data_, static_cast<size_t>(side.bytes));
    copy->rows_ = rows;
    put(side, page, std::move(copy));
  } else {
    tail->rows_ = rows;
    ++tail->version_;
  }
}

// Blocks for all positions before `end`, with the rows from length() on marked as written.
void KvSequence::extend(Side& side, int64_t end) {
  const int64_t n_pages = ceil_div(end, kKvPageTokens);
  while (static_cast<int64_t>(side.blocks.size()) < n_pages) {
    KvBlockRef block = side.bytes > 0 ? pool_->take(side.bytes) : nullptr;
    put(side, static_cast<int64_t>(side.blocks.size()), std::move(block));
  }
  if (side.bytes == 0) return;
  for (int64_t page = length_ / kKvPageTokens; page < n_pages; ++page) {
    int64_t& rows = side.blocks[static_cast<size_t>(page)]->rows_;
    rows = std::max(rows, std::min(kKvPageTokens, end - page * kKvPageTokens));
  }
}

void KvSequence::prepare(int64_t n) {
  CHECK(n >= 0);
  drop_unseen();
  if (n == 0) return;
  for (Side* side : {&local_, &global_}) {
    own_tail(*side);
    extend(*side, length_ + n);
  }
  claimed_ = std::max(claimed_, length_ + n);
}

void KvSequence::advance(int64_t n) {
  CHECK(n >= 0 && length_ + n <= claimed_);
  length_ += n;
}

int64_t KvSequence::bytes_to_prepare(int64_t n) const {
  int64_t bytes = 0;
  for (const Side* side : {&local_, &global_}) {
    const int64_t more = ceil_div(length_ + n, kKvPageTokens) - n_pages();
    bytes += std::max<int64_t>(0, more) * side->bytes;
    if (n > 0 && tail_is_taken(*side)) bytes += side->bytes;
  }
  return bytes;
}

int64_t KvSequence::growth_to_prepare(int64_t n) const {
  int64_t bytes = bytes_to_prepare(n);
  for (const Side* side : {&local_, &global_}) {
    if (n == 0 || !tail_is_taken(*side)) continue;
    const KvBlockRef& tail = side->blocks[static_cast<size_t>(length_ / kKvPageTokens)];
    if (tail->sequences_ == 1) bytes -= side->bytes;  // the copy replaces it
  }
  return bytes;
}

void KvSequence::start_from(const KvPrefix& prefix) {
  CHECK(prefix.local.size() == prefix.global.size());
  CHECK(static_cast<int64_t>(prefix.global.size()) == ceil_div(prefix.length, kKvPageTokens));
  clear();
  length_ = claimed_ = prefix.length;
  const int64_t seen = layout_.first_visible(length_) / kKvPageTokens;
  for (size_t i = 0; i < prefix.global.size(); ++i) {
    const auto page = static_cast<int64_t>(i);
    CHECK(global_.bytes == 0 || prefix.global[i]);
    CHECK(local_.bytes == 0 || page < seen || prefix.local[i]);
    put(global_, page, prefix.global[i]);
    put(local_, page, page < seen ? nullptr : prefix.local[i]);
  }
  first_local_ = std::min(seen, n_pages());
}

void KvSequence::replace(int64_t page, const KvBlockRef& local, const KvBlockRef& global) {
  CHECK(page >= 0 && (page + 1) * kKvPageTokens <= length_);
  if (local && page >= first_local_) put(local_, page, local);
  if (global) put(global_, page, global);
}

void KvSequence::clear() {
  for (Side* side : {&local_, &global_}) {
    for (int64_t page = 0; page < static_cast<int64_t>(side->blocks.size()); ++page) {
      put(*side, page, nullptr);
    }
    side->blocks.clear();
  }
  for (std::vector<std::byte*>& p : pointers_) p.clear();
  length_ = claimed_ = first_local_ = 0;
}

kernels::KvLayer KvSequence::layer(int64_t owner) const {
  CHECK(owner >= 0 && owner < static_cast<int64_t>(pointers_.size()));
  kernels::KvLayer k = layout_.layers[static_cast<size_t>(owner)].page;
  k.pages = pointers_[static_cast<size_t>(owner)];
  return k;
}

KvBatch::KvBatch(const Config& config, std::span<const KvSequence* const> sequences)
    : layers_(static_cast<size_t>(config.n_owners())) {
  for (int64_t i = 0; i < config.n_owners(); ++i) {
    for (const KvSequence* s : sequences) {
      layers_[static_cast<size_t>(i)].push_back(s->layer(i));
    }
  }
}

int64_t kv_bytes(const Config& config, kernels::KvType type, int64_t n_tokens, int64_t chunk) {
  CHECK(n_tokens >= 0 && chunk >= 1);
  const KvLayout layout(config, type);
  const int64_t pages = ceil_div(n_tokens, kKvPageTokens);
  // A step's rows and the keys before them that its first row sees, at any offset within a page.
  const int64_t local_pages =
      std::min(pages, ceil_div(layout.window - 1 + chunk, kKvPageTokens) + 1);
  return add_or_throw(mul_or_throw(pages, layout.global_bytes, "context memory"),
                      mul_or_throw(local_pages, layout.local_bytes, "context memory"),
                      "context memory");
}

}  // namespace carat::model
