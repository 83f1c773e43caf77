// Where keys and values of earlier tokens live: refcounted pages under one hard budget.
//
// Every layer that owns K and V has its own list of pages per sequence (layout:
// kernels/kv_pages.h). A page of a local layer is given back once no later query can see into it,
// so that a local layer costs its window whatever the length of the sequence. Pages are shared
// handles: several sequences may hold the same one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kv_pages.h"
#include "model/config.h"

namespace carat::model {

using KvPage = std::shared_ptr<std::byte>;

// Memory for pages. Returned pages are kept for the next ones of their size. Used by one thread at
// a time; outlived by no page, since each page keeps its pool alive.
class KvPagePool : public std::enable_shared_from_this<KvPagePool> {
 public:
  // `budget` in bytes holds for pages in use and pages at rest together.
  static std::shared_ptr<KvPagePool> create(int64_t budget);

  // A page of `bytes` bytes, aligned to 64. Throws Error if the budget does not allow it.
  [[nodiscard]] KvPage take(int64_t bytes);

  int64_t budget() const { return budget_; }
  int64_t bytes_in_use() const { return in_use_; }
  int64_t peak_bytes() const { return peak_; }

 private:
  explicit KvPagePool(int64_t budget) : budget_(budget) {}
  struct FreeList {
    int64_t bytes = 0;
    std::vector<std::unique_ptr<std::byte, void (*)(std::byte*)>> pages;
  };
  FreeList& list_for(int64_t bytes);
  void drop_pages_at_rest();
  void give_back(std::byte* page, int64_t bytes);

  int64_t budget_;
  int64_t in_use_ = 0, at_rest_ = 0, peak_ = 0;
  std::vector<FreeList> free_;
};

// Keys and values of one sequence.
class KvSequence {
 public:
  // `config` outlives it.
  KvSequence(const Config& config, kernels::KvType type, std::shared_ptr<KvPagePool> pool);

  int64_t length() const { return length_; }  // positions stored

  // Makes room for positions [length, length + n) and gives back the pages that no query from
  // `length` on can see. Throws Error if the pool's budget does not allow it; then the sequence is
  // as usable as before. Call before the forward pass over those positions, advance() after it.
  void prepare(int64_t n);
  void advance(int64_t n) { length_ += n; }
  void clear();

  // Pages of a layer that owns K and V. Valid until the next prepare() or clear().
  kernels::KvLayer layer(int64_t owner) const;
  kernels::KvType type() const { return type_; }

 private:
  struct Layer {
    std::vector<KvPage> pages;
    std::vector<std::byte*> pointers;  // same pages, as attention sees them
    int64_t first_kept = 0;            // pages before are gone
  };
  const Config& config_;
  kernels::KvType type_;
  std::shared_ptr<KvPagePool> pool_;
  int64_t length_ = 0;
  std::vector<Layer> layers_;  // [n_owners]
};

// The sequences of one call, in the form that Step wants. Built after prepare(), valid as long as
// the sequences' pages.
class KvBatch {
 public:
  KvBatch(const Config& config, std::span<const KvSequence* const> sequences);
  std::span<const kernels::KvLayer> layer(int64_t owner) const {
    return layers_[static_cast<size_t>(owner)];
  }

 private:
  std::vector<std::vector<kernels::KvLayer>> layers_;
};

// Most bytes of pages that a sequence of `n_tokens` needs at any time when it is read in steps of
// at most `chunk` tokens.
int64_t kv_bytes(const Config& config, kernels::KvType type, int64_t n_tokens, int64_t chunk);

}  // namespace carat::model
