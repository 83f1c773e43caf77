#include "text/word_encoder.h"

#include <algorithm>
#include <climits>
#include <functional>

#include "base/error.h"
#include "base/utf8.h"
#include "text/piece_hash.h"

namespace carat::text {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";
constexpr size_t kMaxCachedWord = 48;  // bytes
constexpr size_t kMaxShort = 40;       // symbols; beyond, the quadratic loop loses to the heap
constexpr size_t kMaxSlots = 8192;
constexpr int64_t kMaxText = INT32_MAX;

}  // namespace

WordEncoder::WordEncoder(const Tokenizer& tokenizer, std::string_view text,
                         std::vector<int32_t>* out)
    : t_(tokenizer), vocab_(*tokenizer.vocab_), text_(text), out_(out), out_base_(out->size()) {
  if (static_cast<int64_t>(text.size()) > kMaxText) {
    throw Error({"the text is too long to be encoded in one piece",
                 {},
                 {},
                 "at most " + std::to_string(kMaxText) + " bytes",
                 std::to_string(text.size()) + " bytes",
                 {}});
  }
  size_t n_slots = 0;
  if (text.size() >= 256) {
    n_slots = 64;
    while (n_slots < kMaxSlots && n_slots * 8 < text.size()) n_slots *= 2;
  }
  seen_.resize(n_slots);
}

void WordEncoder::run() {
  for (size_t at = 0; at < text_.size();) {
    const bool newline = text_[at] == '\n';
    size_t end = newline ? text_.find_first_not_of('\n', at) : text_.find('\n', at);
    if (end == std::string_view::npos) end = text_.size();
    if (newline) {
      newline_run(at, end);
    } else {
      line(at, end);
    }
    at = end;
  }
}

void WordEncoder::newline_run(size_t begin, size_t end) {
  const size_t length = end - begin;
  if (length < t_.newline_runs_.size() && t_.newline_runs_[length] != kNoToken) {
    out_->push_back(t_.newline_runs_[length]);
  } else {
    merge_word(text_.substr(begin, length));
  }
}

void WordEncoder::line(size_t begin, size_t end) {
  // <unk> stands for a whole run of unknown characters: no cuts inside one.
  if (vocab_.byte_tokens.empty()) return merge_word(text_.substr(begin, end - begin));
  size_t word_begin = begin;
  int previous = -1;
  for (size_t at = begin; at < end;) {
    const auto c = static_cast<uint8_t>(text_[at]);
    size_t length = 1;
    int character_class = c;
    if (c >= 0x80) {
      const std::string_view rest = text_.substr(at, end - at);
      length = std::max(1, utf8_front(rest).length);
      character_class = rest.starts_with(kSpaceMark) ? ' ' : 128;
    }
    if (previous >= 0 && !t_.joinable_[previous][character_class]) {
      word(word_begin, at);
      word_begin = at;
    }
    previous = character_class;
    at += length;
  }
  word(word_begin, end);
}

void WordEncoder::word(size_t begin, size_t end) {
  const std::string_view text = text_.substr(begin, end - begin);
  if (seen_.empty() || text.size() > kMaxCachedWord) return merge_word(text);
  Seen& seen = seen_[piece_hash(text) & (seen_.size() - 1)];
  if (seen.size == text.size() && text_.substr(seen.begin, seen.size) == text) {
    const size_t n = out_->size();
    out_->resize(n + seen.n_ids);
    std::copy_n(out_->begin() + out_base_ + seen.ids_begin, seen.n_ids, out_->begin() + n);
    return;
  }
  const size_t ids_begin = out_->size() - out_base_;
  merge_word(text);
  seen = {static_cast<uint32_t>(begin), static_cast<uint32_t>(text.size()),
          static_cast<uint32_t>(ids_begin),
          static_cast<uint32_t>(out_->size() - out_base_ - ids_begin)};
}

void WordEncoder::split_characters(std::string_view word) {
  symbols_.clear();
  const auto spell = [&](std::string_view bytes) {
    if (vocab_.byte_tokens.empty()) {
      const int32_t unk = vocab_.special.unk;
      if (symbols_.empty() || symbols_.back() != unk) symbols_.push_back(unk);
      return;
    }
    for (char b : bytes) symbols_.push_back(vocab_.byte_tokens[static_cast<uint8_t>(b)]);
  };
  for (size_t at = 0; at < word.size();) {
    const auto c = static_cast<uint8_t>(word[at]);
    if (c < 0x80) {
      const int32_t id = t_.ascii_[c];
      if (id != kNoToken) {
        symbols_.push_back(id);
      } else {
        spell(c == ' ' ? kSpaceMark : word.substr(at, 1));
      }
      ++at;
      continue;
    }
    const int length = utf8_front(word.substr(at)).length;
    if (length == 0) {
      spell(word.substr(at++, 1));
      continue;
    }
    const std::string_view character = word.substr(at, length);
    const int32_t id = t_.index_.find(character);
    if (id != kNoToken && !t_.is_special(id)) {
      symbols_.push_back(id);
    } else {
      spell(character);
    }
    at += length;
  }
}

void WordEncoder::merge_word(std::string_view word) {
  split_characters(word);
  if (symbols_.size() > kMaxShort) {
    merge_long();
  } else {
    merge_short();
  }
}

// The pair of lowest rank is searched anew each time.
void WordEncoder::merge_short() {
  const Tokenizer::Pair* pairs[kMaxShort];
  size_t n = symbols_.size();
  int32_t* id = symbols_.data();
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = t_.find_pair(id[i], id[i + 1]);
  while (n > 1) {
    size_t best = n;
    int32_t rank = INT32_MAX;
    for (size_t i = 0; i + 1 < n; ++i) {
      if (pairs[i] != nullptr && pairs[i]->rank < rank) {
        rank = pairs[i]->rank;
        best = i;
      }
    }
    if (best == n) break;
    id[best] = pairs[best]->result;
    --n;
    for (size_t i = best + 1; i < n; ++i) {
      id[i] = id[i + 1];
      if (i + 1 < n) pairs[i] = pairs[i + 1];
    }
    if (best > 0) pairs[best - 1] = t_.find_pair(id[best - 1], id[best]);
    if (best + 1 < n) pairs[best] = t_.find_pair(id[best], id[best + 1]);
  }
  out_->insert(out_->end(), id, id + n);
}

void WordEncoder::push_candidate(int32_t node) {
  const int32_t next = nodes_[node].next;
  if (next < 0) return;
  const Tokenizer::Pair* pair = t_.find_pair(nodes_[node].id, nodes_[next].id);
  if (pair == nullptr) return;
  heap_.push_back(static_cast<uint64_t>(pair->rank) << 32 | static_cast<uint32_t>(node));
}

// Candidates wait in a heap; one whose tokens have changed since no longer fits its merge and is
// dropped when it comes up.
void WordEncoder::merge_long() {
  const auto n = static_cast<int32_t>(symbols_.size());
  nodes_.resize(n);
  heap_.clear();
  for (int32_t i = 0; i < n; ++i) nodes_[i] = {symbols_[i], i - 1, i + 1 < n ? i + 1 : -1};
  for (int32_t i = 0; i < n; ++i) push_candidate(i);
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  const auto push = [&](int32_t node) {
    const size_t before = heap_.size();
    push_candidate(node);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Vocab::Merge& merge = vocab_.merges[heap_.back() >> 32];
    const auto at = static_cast<int32_t>(heap_.back() & 0xffffffffu);
    heap_.pop_back();
    Node& node = nodes_[at];
    if (node.id != merge.left || node.next < 0 || nodes_[node.next].id != merge.right) continue;
    const int32_t gone = node.next;
    node.id = merge.result;
    node.next = nodes_[gone].next;
    if (node.next >= 0) nodes_[node.next].previous = at;
    nodes_[gone].id = kNoToken;
    if (node.previous >= 0) push(node.previous);
    push(at);
  }
  for (int32_t i = 0; i >= 0; i = nodes_[i].next) out_->push_back(nodes_[i].id);
}

}  // namespace carat::text
