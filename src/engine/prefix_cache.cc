#include "engine/prefix_cache.h"

#include <algorithm>
#include <new>

#include "base/checked.h"
#include "base/error.h"

namespace carat::engine {
namespace {

using kernels::kKvPageTokens;
using model::KvBlockRef;

std::span<const int32_t> page_of(std::span<const int32_t> tokens, int64_t page) {
  const auto begin = static_cast<size_t>(page * kKvPageTokens);
  return tokens.subspan(begin, std::min(tokens.size() - begin, static_cast<size_t>(kKvPageTokens)));
}

}  // namespace

int64_t common_tokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto n = static_cast<std::ptrdiff_t>(std::min(a.size(), b.size()));
  return std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin();
}

// A beginning that can be taken up: `path` full pages, then tokens of `tail`.
struct PrefixCache::Match {
  int64_t length = 0;
  std::vector<Node*> path;  // [ceil(length / 64)], the tail the last one
};

bool PrefixCache::TokenLess::operator()(std::span<const int32_t> a,
                                        std::span<const int32_t> b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

void PrefixCache::Remembered::set(const KvBlockRef& b) {
  block = b;
  version = b ? b->version() : 0;
}

KvBlockRef PrefixCache::Remembered::get() const {
  KvBlockRef b = block.lock();
  if (b && b->version() != version) b.reset();
  return b;
}

PrefixCache::PrefixCache(const model::KvLayout& layout)
    : layout_(layout), root_(std::make_unique<Node>()) {}

// Children before parents, without recursion as deep as a sequence has pages.
PrefixCache::~PrefixCache() {
  std::vector<std::unique_ptr<Node>> nodes;
  nodes.push_back(std::move(root_));
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (auto& [tokens, node] : nodes[i]->children) nodes.push_back(std::move(node));
  }
  while (!nodes.empty()) nodes.pop_back();
}

PrefixCache::Node* PrefixCache::child(Node& parent, std::span<const int32_t> tokens) {
  const auto it = parent.children.find(tokens);
  return it == parent.children.end() ? nullptr : it->second.get();
}

PrefixCache::Node& PrefixCache::add_child(Node& parent, std::span<const int32_t> tokens) {
  auto node = std::make_unique<Node>();
  node->parent = &parent;
  node->depth = parent.depth + 1;
  const auto [it, inserted] =
      parent.children.emplace(std::vector<int32_t>(tokens.begin(), tokens.end()), std::move(node));
  CHECK(inserted);
  it->second->self = it;
  ++n_nodes_;
  return *it->second;
}

void PrefixCache::pin(Node* node) { ++node->pins; }

void PrefixCache::move_to(Place& place, Node* node) {
  pin(node);
  leave(place);
  place.node_ = node;
}

// Removes what nobody needs any more, upwards.
void PrefixCache::unpin(Node* node) {
  CHECK(node->pins > 0);
  --node->pins;
  while (node != root_.get() && node->pins == 0 && node->children.empty()) {
    Node* parent = node->parent;
    parent->children.erase(node->self);
    --n_nodes_;
    node = parent;
  }
}

// The nodes of full pages that `tokens` goes through.
std::vector<PrefixCache::Node*> PrefixCache::walk(std::span<const int32_t> tokens) const {
  std::vector<Node*> path;
  Node* node = root_.get();
  const int64_t n_pages = static_cast<int64_t>(tokens.size()) / kKvPageTokens;
  for (int64_t page = 0; page < n_pages; ++page) {
    const auto it = node->children.find(page_of(tokens, page));
    if (it == node->children.end()) break;
    node = it->second.get();
    path.push_back(node);
  }
  return path;
}

// The longest beginning of path and tail whose window is held by somebody, if longer than `best`.
void PrefixCache::consider(std::vector<Node*> path, Node* tail, int64_t tail_tokens,
                           Match& best) const {
  const int64_t total = static_cast<int64_t>(path.size()) * kKvPageTokens + tail_tokens;
  if (tail != nullptr) path.push_back(tail);
  const auto is_held = [&](int64_t page) {
    return layout_.local_bytes == 0 || path[static_cast<size_t>(page)]->local.get() != nullptr;
  };
  // For each last page the longest beginning: it sees least far back. Pages [held, last] are held.
  int64_t held = static_cast<int64_t>(path.size());
  for (int64_t last = held - 1; last >= 0; --last) {
    const int64_t length = std::min(total, (last + 1) * kKvPageTokens);
    if (length <= best.length) return;
    const int64_t first = layout_.first_visible(length) / kKvPageTokens;
    held = std::min(held, last + 1);
    while (held > first && is_held(held - 1)) --held;
    if (held > first) continue;
    path.resize(static_cast<size_t>(last + 1));
    best = {length, std::move(path)};
    return;
  }
}

PrefixCache::Match PrefixCache::match(std::span<const int32_t> tokens) const {
  const std::vector<Node*> path = walk(tokens);
  Match best;
  const Node* end = path.empty() ? root_.get() : path.back();
  const auto page = static_cast<int64_t>(path.size());
  if (page * kKvPageTokens < static_cast<int64_t>(tokens.size())) {
    const std::span<const int32_t> rest = page_of(tokens, page);
    const auto consider_child = [&](Children::const_iterator it) {
      const int64_t n = common_tokens(it->first, rest);
      if (n > 0) consider(path, it->second.get(), n, best);
    };
    // The children that share most with the rest are beside its place in their order; one that
    // shares as much, but whose window is held, may be a page that ends there.
    const auto after = end->children.lower_bound(rest);
    if (after != end->children.end()) consider_child(after);
    if (after != end->children.begin()) consider_child(std::prev(after));
    for (size_t n = std::min(rest.size(), static_cast<size_t>(kKvPageTokens - 1)); n > 0; --n) {
      if (best.length >= page * kKvPageTokens + static_cast<int64_t>(n)) break;
      const auto it = end->children.find(rest.first(n));
      if (it != end->children.end()) consider_child(it);
    }
  }
  consider(path, nullptr, 0, best);
  return best;
}

model::KvPrefix PrefixCache::prefix(const Match& match) const {
  model::KvPrefix p;
  p.length = match.length;
  const int64_t first = layout_.first_visible(match.length) / kKvPageTokens;
  for (size_t i = 0; i < match.path.size(); ++i) {
    p.global.push_back(match.path[i]->global);
    p.local.push_back(static_cast<int64_t>(i) < first ? nullptr : match.path[i]->local.get());
  }
  return p;
}

// The restart point at or before the end of the match was of use.
void PrefixCache::touch(const Match& match) {
  for (Node* node = match.path.back(); node != nullptr; node = node->parent) {
    if (!node->point) continue;
    points_.splice(points_.end(), points_, *node->point);
    return;
  }
}

int64_t PrefixCache::find(std::span<const int32_t> tokens) const { return match(tokens).length; }

int64_t PrefixCache::take_up(std::span<const int32_t> tokens, int64_t at_least,
                             model::KvSequence& sequence, Place& place) {
  const Match m = match(tokens);
  if (m.length <= at_least) return 0;
  // Holds the blocks before the sequence lets go of its own, which may be the same.
  const model::KvPrefix p = prefix(m);
  sequence.start_from(p);
  touch(m);
  const int64_t full = m.length / kKvPageTokens;
  Node* node = full == 0 ? root_.get() : m.path[static_cast<size_t>(full - 1)];
  // A page of which only a part is taken is no page of this sequence.
  move_to(place, node);
  return m.length;
}

void PrefixCache::enter(std::span<const int32_t> tokens, model::KvSequence& sequence,
                        Place& place) {
  CHECK(static_cast<int64_t>(tokens.size()) >= sequence.length());
  Node* node = place.node_ != nullptr ? place.node_ : root_.get();
  for (int64_t page = node->depth; (page + 1) * kKvPageTokens <= sequence.length(); ++page) {
    Node* next = child(*node, page_of(tokens, page));
    if (next == nullptr) {
      next = &add_child(*node, page_of(tokens, page));
      next->global = sequence.global(page);
      next->local.set(sequence.local(page));
    } else {
      const KvBlockRef known = next->local.get();
      if (!known) next->local.set(sequence.local(page));
      sequence.replace(page, known, next->global);
    }
    node = next;
    // At once, so that no node stays behind that nobody needs if memory runs out.
    move_to(place, node);
  }
  if (place.node_ == nullptr) move_to(place, node);
}

void PrefixCache::add_restart_point(std::span<const int32_t> tokens, int64_t length,
                                    const model::KvSequence& sequence, const Place& place) {
  CHECK(length > 0 && length <= sequence.length());
  const int64_t n_pages = ceil_div(length, kKvPageTokens);
  const int64_t first = layout_.first_visible(length) / kKvPageTokens;
  if (layout_.local_bytes > 0) {
    for (int64_t page = first; page < n_pages; ++page) {
      if (!sequence.local(page)) return;
    }
  }
  Node* node = place.node_ != nullptr ? place.node_ : root_.get();
  CHECK(node->depth == sequence.length() / kKvPageTokens);
  while (node->depth > length / kKvPageTokens) node = node->parent;
  if (length % kKvPageTokens != 0) {
    const std::span<const int32_t> rest =
        page_of(tokens.first(static_cast<size_t>(length)), n_pages - 1);
    Node* leaf = child(*node, rest);
    if (leaf == nullptr) {
      leaf = &add_child(*node, rest);
      leaf->global = sequence.global(n_pages - 1);
    }
    node = leaf;
  }
  if (node->point) {
    points_.splice(points_.end(), points_, *node->point);
    return;
  }
  pin(node);
  try {
    node->point = points_.insert(points_.end(), RestartPoint{node, {}});
    std::vector<model::KvBlockRef>& local = points_.back().local;
    local.reserve(static_cast<size_t>(n_pages - first));
    Node* at = node;
    for (int64_t page = n_pages - 1; page >= first; --page, at = at->parent) {
      if (!at->local.get()) at->local.set(sequence.local(page));
      local.push_back(at->local.get());
    }
  } catch (const std::bad_alloc&) {
    if (node->point) points_.erase(*node->point);
    node->point.reset();
    unpin(node);
    throw;
  }
}

void PrefixCache::leave(Place& place) {
  if (place.node_ != nullptr) unpin(place.node_);
  place.node_ = nullptr;
}

bool PrefixCache::evict() {
  if (points_.empty()) return false;
  Node* node = points_.front().node;
  points_.pop_front();
  node->point.reset();
  unpin(node);
  return true;
}

void PrefixCache::clear() {
  while (evict()) {
  }
}

}  // namespace carat::engine
