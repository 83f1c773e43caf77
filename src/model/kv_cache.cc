#include "model/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"

namespace carat::model {
namespace {

using kernels::kKvPageTokens;

constexpr int64_t kAlignment = 64;

void free_bytes(std::byte* p) { std::free(p); }

kernels::KvLayer describe(const Config& config, int64_t i, kernels::KvType type) {
  const LayerConfig l = config.layer(i);
  kernels::KvLayer k;
  k.type = type;
  k.n_kv_heads = l.n_kv_heads;
  k.head_dim = l.head_dim;
  return k;
}

}  // namespace

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

KvPage KvPagePool::take(int64_t bytes) {
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
  in_use_ += bytes;
  peak_ = std::max(peak_, in_use_);
  return KvPage(page,
                [pool = shared_from_this(), bytes](std::byte* p) { pool->give_back(p, bytes); });
}

void KvPagePool::give_back(std::byte* page, int64_t bytes) {
  in_use_ -= bytes;
  at_rest_ += bytes;
  list_for(bytes).pages.emplace_back(page, &free_bytes);
}

KvSequence::KvSequence(const Config& config, kernels::KvType type, std::shared_ptr<KvPagePool> pool)
    : config_(config),
      type_(type),
      pool_(std::move(pool)),
      layers_(static_cast<size_t>(config.n_owners())) {}

void KvSequence::prepare(int64_t n) {
  CHECK(n >= 0);
  for (int64_t i = 0; i < config_.n_owners(); ++i) {
    Layer& l = layers_[static_cast<size_t>(i)];
    const int64_t window = config_.layer(i).window;
    if (window > 0) {
      // The earliest row of the next call sees keys from length - window + 1 on.
      const int64_t keep = std::max<int64_t>(0, length_ - window + 1) / kKvPageTokens;
      const int64_t end = std::min(keep, static_cast<int64_t>(l.pages.size()));
      for (; l.first_kept < end; ++l.first_kept) {
        l.pages[static_cast<size_t>(l.first_kept)].reset();
        l.pointers[static_cast<size_t>(l.first_kept)] = nullptr;
      }
    }
  }
  const auto n_pages = static_cast<size_t>(ceil_div(length_ + n, kKvPageTokens));
  for (int64_t i = 0; i < config_.n_owners(); ++i) {
    Layer& l = layers_[static_cast<size_t>(i)];
    const int64_t bytes = describe(config_, i, type_).page_bytes();
    while (l.pages.size() < n_pages) {
      l.pages.push_back(pool_->take(bytes));
      l.pointers.push_back(l.pages.back().get());
    }
  }
}

void KvSequence::clear() {
  for (Layer& l : layers_) l = Layer();
  length_ = 0;
}

kernels::KvLayer KvSequence::layer(int64_t owner) const {
  CHECK(owner >= 0 && owner < config_.n_owners());
  kernels::KvLayer k = describe(config_, owner, type_);
  k.pages = layers_[static_cast<size_t>(owner)].pointers;
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
  const int64_t all = ceil_div(n_tokens, kKvPageTokens);
  int64_t bytes = 0;
  for (int64_t i = 0; i < config.n_owners(); ++i) {
    int64_t pages = all;
    const int64_t window = config.layer(i).window;
    // A step's rows and the keys before them that its first row sees, at any offset within a page.
    if (window > 0) pages = std::min(all, ceil_div(window - 1 + chunk, kKvPageTokens) + 1);
    bytes = add_or_throw(
        bytes, mul_or_throw(pages, describe(config, i, type).page_bytes(), "context memory"),
        "context memory");
  }
  return bytes;
}

}  // namespace carat::model
