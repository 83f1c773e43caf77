// Which prefixes of token ids have their keys and values in memory, and where a new sequence can
// take them up.
//
// A tree over pages: a node stands for kKvPageTokens consecutive tokens after those of its parent
// (for fewer in a leaf, where a restart point ends inside a page) and holds the block of the global
// layers. Its local block it only remembers: local blocks belong to running sequences, which drop
// them as their window moves on, and to restart points. A sequence can be taken up after any
// position whose window of local blocks somebody still holds. A restart point holds that window for
// one position, and with it the nodes up to there. Nodes that no restart point and no running
// sequence needs are gone at once.
//
// Everything is lists of blocks: nothing is copied. Used by one thread at a time, that of the pool.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/kv_cache.h"

namespace carat::engine {

// Tokens that begin both.
int64_t common_tokens(std::span<const int32_t> a, std::span<const int32_t> b);

// If memory runs out in one of its calls, std::bad_alloc comes out, and cache, sequence and place
// are as usable as before.
class PrefixCache {
  struct Node;
  struct Match;

 public:
  explicit PrefixCache(const model::KvLayout& layout);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Where a running sequence is in the tree: after its last full page. Keeps the nodes up to there.
  // Must be given to leave() before it goes.
  class Place {
    friend class PrefixCache;
    Node* node_ = nullptr;
  };

  // Tokens of the longest beginning of `tokens` that can be taken up.
  int64_t find(std::span<const int32_t> tokens) const;
  // Makes `sequence` hold that beginning instead of what it held; returns its length. If it is no
  // longer than `at_least`, nothing changes and 0 is returned.
  int64_t take_up(std::span<const int32_t> tokens, int64_t at_least, model::KvSequence& sequence,
                  Place& place);

  // Enters the pages that `sequence` filled since the last call; a page that is there already takes
  // the place of the sequence's own. `tokens` begins with those that the sequence stores. Call
  // between advance() and the next prepare().
  void enter(std::span<const int32_t> tokens, model::KvSequence& sequence, Place& place);
  // Leaves a restart point after the first `length` tokens, 0 < length <= sequence.length(). Does
  // nothing if the sequence no longer holds the window before it. REQUIRES: entered.
  void add_restart_point(std::span<const int32_t> tokens, int64_t length,
                         const model::KvSequence& sequence, const Place& place);
  // The sequence ended.
  void leave(Place& place);

  // Drops the restart point that was of use longest ago; false if there is none.
  bool evict();
  void clear();

  int64_t restart_points() const { return static_cast<int64_t>(points_.size()); }
  int64_t nodes() const { return n_nodes_; }

 private:
  struct TokenLess {
    using is_transparent = void;
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
  };
  using Children = std::map<std::vector<int32_t>, std::unique_ptr<Node>, TokenLess>;
  struct RestartPoint {
    Node* node = nullptr;  // whose last token is the last before the point
    std::vector<model::KvBlockRef> local;
  };
  using Points = std::list<RestartPoint>;  // that of use longest ago first
  // A block that is remembered without being held.
  struct Remembered {
    std::weak_ptr<model::KvBlock> block;
    uint32_t version = 0;
    void set(const model::KvBlockRef& b);
    model::KvBlockRef get() const;
  };
  struct Node {
    Node* parent = nullptr;
    int64_t depth = 0;  // pages up to and with this one; 0 is the root
    Children::iterator self;
    model::KvBlockRef global;
    Remembered local;
    int64_t pins = 0;  // restart point and running sequences that end here
    std::optional<Points::iterator> point;
    Children children;
  };

  Node* child(Node& parent, std::span<const int32_t> tokens);
  Node& add_child(Node& parent, std::span<const int32_t> tokens);
  void pin(Node* node);
  void move_to(Place& place, Node* node);
  void unpin(Node* node);
  std::vector<Node*> walk(std::span<const int32_t> tokens) const;
  Match match(std::span<const int32_t> tokens) const;
  void consider(std::vector<Node*> path, Node* tail, int64_t tail_tokens, Match& best) const;
  model::KvPrefix prefix(const Match& match) const;
  void touch(const Match& match);

  model::KvLayout layout_;
  std::unique_ptr<Node> root_;
  int64_t n_nodes_ = 0;
  Points points_;
};

}  // namespace carat::engine
