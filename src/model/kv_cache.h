// Where keys and values of earlier tokens live: refcounted blocks of pages under one hard budget.
//
// A block holds the pages (layout: kernels/kv_pages.h) of kKvPageTokens consecutive positions for
// all local layers, or for all global layers, that own K and V. A sequence is two lists of blocks.
// A local block is given back once no later query can see into it, so that local layers cost
// their window whatever the length of the sequence.
//
// Sharing. Several sequences, and prefixes kept for later ones, may hold the same block. A row of a
// block is written once: whoever goes on from a block whose next row is taken gets a copy of it
// first, unless nobody else holds the block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kv_pages.h"
#include "model/config.h"

namespace carat::model {

class KvPagePool;
struct Weights;

// Throws Error unless the model's keys and values can be of this type. Scales that a mobile
// checkpoint states are those of int8 codes, which int4 would round a second time.
void require_kv_type(const Weights& weights, kernels::KvType type);

// Where the pages of each owning layer lie in their block.
struct KvLayout {
  KvLayout(const Config& config, kernels::KvType type);

  struct Layer {
    bool is_local = false;
    int64_t offset = 0;     // of its page in the block, a multiple of 64
    kernels::KvLayer page;  // type and shape, no pages
  };
  std::vector<Layer> layers;                  // [n_owners]
  int64_t local_bytes = 0, global_bytes = 0;  // of a block; 0: no such layers
  int64_t window = 0;                         // of the local layers

  // First position that the query at `position` sees in local layers.
  int64_t first_visible(int64_t position) const;
};

class KvBlock {
 public:
  ~KvBlock();
  KvBlock(const KvBlock&) = delete;
  KvBlock& operator=(const KvBlock&) = delete;

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Changes when rows that were written are given up, to be written anew. Whoever remembers a block
  // without holding it compares this.
  uint32_t version() const { return version_; }

 private:
  friend class KvPagePool;
  friend class KvSequence;
  KvBlock(std::shared_ptr<KvPagePool> pool, std::byte* data, int64_t bytes);

  std::shared_ptr<KvPagePool> pool_;
  std::byte* data_;
  int64_t bytes_;
  int64_t rows_ = 0;  // written, or about to be
  uint32_t version_ = 0;
  int32_t sequences_ = 0;  // that hold it
};
using KvBlockRef = std::shared_ptr<KvBlock>;

// Memory for blocks. Returned memory is kept for the next blocks of its size. Used by one thread at
// a time; outlived by no block, since each keeps its pool alive.
class KvPagePool : public std::enable_shared_from_this<KvPagePool> {
 public:
  // `budget` in bytes holds for blocks in use and memory at rest together.
  static std::shared_ptr<KvPagePool> create(int64_t budget);

  // A block of `bytes` bytes, aligned to 64. Throws Error if the budget does not allow it.
  [[nodiscard]] KvBlockRef take(int64_t bytes);

  int64_t budget() const { return budget_; }
  int64_t bytes_in_use() const { return in_use_; }
  // Of those, held by a sequence; the rest is kept for later and can be had by letting go of it.
  int64_t bytes_in_sequences() const { return in_sequences_; }
  int64_t bytes_free() const { return budget_ - in_use_; }
  int64_t peak_bytes() const { return peak_; }

 private:
  friend class KvBlock;
  friend class KvSequence;
  explicit KvPagePool(int64_t budget) : budget_(budget) {}
  struct FreeList {
    int64_t bytes = 0;
    std::vector<std::unique_ptr<std::byte, void (*)(std::byte*)>> pages;
  };
  FreeList& list_for(int64_t bytes);
  void drop_pages_at_rest();
  void give_back(std::byte* page, int64_t bytes);

  int64_t budget_;
  int64_t in_use_ = 0, in_sequences_ = 0, at_rest_ = 0, peak_ = 0;
  std::vector<FreeList> free_;
};

// The blocks of the first `length` positions of a sequence, enough to go on from there.
struct KvPrefix {
  int64_t length = 0;
  std::vector<KvBlockRef> local, global;  // [ceil(length / 64)]; null: out of the window, or no
                                          // such layers
};

// Keys and values of one sequence.
class KvSequence {
 public:
  // `config` outlives it.
  KvSequence(const Config& config, kernels::KvType type, std::shared_ptr<KvPagePool> pool);
  ~KvSequence() { clear(); }
  KvSequence(const KvSequence&) = delete;
  KvSequence& operator=(const KvSequence&) = delete;

  int64_t length() const { return length_; }  // positions stored
  // Of its blocks, shared ones included.
  int64_t bytes_held() const {
    return n_pages() * global_.bytes + (n_pages() - first_local_) * local_.bytes;
  }

  // Makes room for positions [length, length + n), in blocks that this sequence may write, after
  // giving back the local blocks that no query from `length` on can see. Throws Error if the pool's
  // budget does not allow it; then the sequence is as usable as before. Call before the forward
  // pass over those positions, advance() after it. May be called again before advance().
  void prepare(int64_t n);
  void advance(int64_t n);
  void clear();
  // The first part of prepare().
  void drop_unseen();

  // What prepare(n) takes from the pool after drop_unseen().
  int64_t bytes_to_prepare(int64_t n) const;
  // By how much that changes the pool's bytes_in_sequences when only sequences hold blocks.
  int64_t growth_to_prepare(int64_t n) const;

  // Starts over from a prefix. REQUIRES: blocks of this layout and pool in which every row before
  // `length` that a later query can see is written.
  void start_from(const KvPrefix& prefix);
  // Blocks of positions [64 * page, 64 * page + 64), page < n_pages(). Null: none.
  int64_t n_pages() const { return static_cast<int64_t>(global_.blocks.size()); }
  const KvBlockRef& local(int64_t page) const { return local_.blocks[static_cast<size_t>(page)]; }
  const KvBlockRef& global(int64_t page) const { return global_.blocks[static_cast<size_t>(page)]; }
  // Puts blocks of the same contents in the place of this sequence's own, so that only one copy
  // stays; null leaves its own. REQUIRES: positions of the page are stored, all 64.
  void replace(int64_t page, const KvBlockRef& local, const KvBlockRef& global);

  // Pages of a layer that owns K and V. Valid until the next prepare() or clear().
  kernels::KvLayer layer(int64_t owner) const;
  kernels::KvType type() const { return type_; }
  const KvLayout& layout() const { return layout_; }

 private:
  // The blocks of one kind of layer.
  struct Side {
    bool is_local;
    int64_t bytes;  // of a block
    std::vector<KvBlockRef> blocks;
  };
  void put(Side& side, int64_t page, KvBlockRef block);
  void own_tail(Side& side);
  void extend(Side& side, int64_t end);
  bool tail_is_taken(const Side& side) const;

  KvLayout layout_;
  kernels::KvType type_;
  std::shared_ptr<KvPagePool> pool_;
  int64_t length_ = 0;
  int64_t claimed_ = 0;  // rows before are this sequence's to write
  Side local_, global_;
  int64_t first_local_ = 0;                        // local blocks before are gone
  std::vector<std::vector<std::byte*>> pointers_;  // [n_owners], as attention sees the pages
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
