#include "text/bpe_trainer.h"

#include <algorithm>
#include <map>
#include <queue>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace carat::text {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

enum class CharClass { kSpace, kNewline, kLetter, kDigit, kPunctuation };

struct Character {
  std::string_view bytes;  // kSpaceMark for a space
  CharClass kind;
};

uint32_t code_point(std::string_view c) {
  const auto b = [&](size_t i) { return static_cast<uint8_t>(c[i]); };
  switch (c.size()) {
    case 1:
      return b(0);
    case 2:
      return (b(0) & 31u) << 6 | (b(1) & 63u);
    case 3:
      return (b(0) & 15u) << 12 | (b(1) & 63u) << 6 | (b(2) & 63u);
    default:
      return (b(0) & 7u) << 18 | (b(1) & 63u) << 12 | (b(2) & 63u) << 6 | (b(3) & 63u);
  }
}

CharClass classify(std::string_view c) {
  const uint32_t u = code_point(c);
  if (u == ' ' || u == 0x2581) return CharClass::kSpace;
  if (u == '\n') return CharClass::kNewline;
  if (u >= '0' && u <= '9') return CharClass::kDigit;
  const bool ascii_letter = (u | 32) >= 'a' && (u | 32) <= 'z';
  if (u < 0x80) return ascii_letter ? CharClass::kLetter : CharClass::kPunctuation;
  // Latin-1 signs, general punctuation and symbols, CJK punctuation.
  const bool sign = (u < 0xc0 && u != 0xaa && u != 0xb5 && u != 0xba) || u == 0xd7 || u == 0xf7 ||
                    (u >= 0x2000 && u < 0x2c00) || (u >= 0x3000 && u < 0x3040);
  return sign ? CharClass::kPunctuation : CharClass::kLetter;
}

// Calls f(Character) for each valid character; malformed bytes are left out.
template <class F>
void each_character(std::string_view text, F f) {
  while (!text.empty()) {
    const int length = utf8_front(text).length;
    const std::string_view c = text.substr(0, std::max(1, length));
    text.remove_prefix(c.size());
    if (length == 0) continue;
    const CharClass kind = classify(c);
    f(Character{kind == CharClass::kSpace ? kSpaceMark : c, kind});
  }
}

using WordCounts = std::unordered_map<std::string, int64_t>;

// Cuts the text into words as the header says.
class WordCounter {
 public:
  explicit WordCounter(WordCounts* counts) : counts_(counts) {}

  void add(const Character& c) {
    if (c.kind == CharClass::kNewline) return flush();
    if (c.kind == CharClass::kSpace) {
      if (in_body_) flush();
      ++n_spaces_;
      return;
    }
    if (n_spaces_ > 0) {
      // The last space belongs to the word, the others are a word of their own.
      --n_spaces_;
      flush();
      word_ = kSpaceMark;
    } else if (in_body_) {
      const bool same = c.kind == kind_ && c.kind != CharClass::kDigit;
      const bool suffix = c.kind == CharClass::kLetter && apostrophe_;  // the s of it's
      const bool apostrophe =
          kind_ == CharClass::kLetter && (c.bytes == "'" || c.bytes == "\u2019");
      if (!same && !suffix) flush();
      apostrophe_ = apostrophe;
    }
    word_ += c.bytes;
    kind_ = c.kind;
    in_body_ = true;
  }

  void flush() {
    for (; n_spaces_ > 0; --n_spaces_) word_ += kSpaceMark;
    if (!word_.empty()) ++(*counts_)[word_];
    word_.clear();
    in_body_ = apostrophe_ = false;
  }

 private:
  WordCounts* counts_;
  std::string word_;
  int64_t n_spaces_ = 0;  // waiting, not yet in word_; then word_ is empty
  bool in_body_ = false;
  bool apostrophe_ = false;  // word_ is one that follows a letter
  CharClass kind_ = CharClass::kSpace;
};

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

class Trainer {
 public:
  explicit Trainer(const BpeTrainerOptions& options) : options_(options) {}

  Vocab train(std::string_view text) {
    add_fixed_pieces();
    add_characters(text);
    if (static_cast<int32_t>(pieces_.size()) > options_.vocab_size) {
      throw Error({"the vocabulary size has no room for the fixed tokens and the text's characters",
                   {},
                   {},
                   "at least " + std::to_string(pieces_.size()),
                   std::to_string(options_.vocab_size),
                   {}});
    }
    collect_words(text);
    count_pairs();
    learn();
    return finish();
  }

 private:
  struct Pair {
    int64_t count = 0;
    std::vector<int32_t> words;  // those that hold it or once did; may repeat
  };
  struct Candidate {
    int64_t count;
    uint64_t key;
    // The most frequent first, then the pair of older tokens.
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  int32_t add_piece(std::string piece, int length) {
    const auto id = static_cast<int32_t>(pieces_.size());
    ids_.emplace(piece, id);
    pieces_.push_back(std::move(piece));
    lengths_.push_back(length);
    return id;
  }

  void add_fixed_pieces() {
    for (const SpecialToken& token : special_tokens()) add_piece(token.text, 0);
    constexpr char kHex[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; ++b) {
      add_piece({'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'}, 0);
    }
    n_atomic_ = static_cast<int32_t>(pieces_.size());
    for (int n = 1; n <= options_.max_newline_run; ++n) add_piece(std::string(n, '\n'), n);
    for (int n = 2; n <= options_.max_newline_run; ++n) {
      for (int a = 1; a < n; ++a) {
        merges_.emplace_back(n_atomic_ + a - 1, n_atomic_ + n - a - 1);
      }
    }
  }

  void add_characters(std::string_view text) {
    std::map<std::string, int64_t, std::less<>> counts;
    for (char c = '!'; c <= '~'; ++c) counts[std::string(1, c)] = options_.min_character_count;
    counts[std::string(kSpaceMark)] = options_.min_character_count;
    each_character(text, [&](const Character& c) {
      if (c.kind == CharClass::kNewline) return;
      const auto it = counts.find(c.bytes);
      if (it != counts.end()) {
        ++it->second;
      } else {
        counts.emplace(c.bytes, 1);
      }
    });
    std::vector<std::pair<std::string, int64_t>> kept;
    for (const auto& entry : counts) {
      if (entry.second >= options_.min_character_count) kept.push_back(entry);
    }
    std::stable_sort(kept.begin(), kept.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    for (auto& entry : kept) add_piece(entry.first, 1);
  }

  // Rare characters, which are no pieces, end a word.
  void collect_words(std::string_view text) {
    WordCounts counts;
    WordCounter counter(&counts);
    each_character(text, [&](const Character& c) {
      if (c.kind != CharClass::kNewline && !ids_.contains(std::string(c.bytes))) {
        counter.flush();
      } else {
        counter.add(c);
      }
    });
    counter.flush();
    std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
    std::sort(sorted.begin(), sorted.end());
    for (const auto& [bytes, count] : sorted) {
      Word word{{}, count};
      each_character(bytes, [&](const Character& c) {
        word.symbols.push_back(ids_.at(std::string(c.bytes)));
      });
      if (word.symbols.size() > 1) words_.push_back(std::move(word));
    }
  }

  void count_pairs() {
    for (size_t w = 0; w < words_.size(); ++w) {
      const auto& s = words_[w].symbols;
      for (size_t i = 0; i + 1 < s.size(); ++i) change(s[i], s[i + 1], static_cast<int32_t>(w), 1);
    }
    touched_.clear();
    for (const auto& [key, pair] : pairs_) queue_.push({pair.count, key});
  }

  void change(int32_t left, int32_t right, int32_t w, int sign) {
    const uint64_t key = key_of(left, right);
    Pair& pair = pairs_[key];
    pair.count += sign * words_[w].count;
    if (sign > 0) {
      if (pair.words.empty() || pair.words.back() != w) pair.words.push_back(w);
      touched_.push_back(key);
    }
  }

  void learn() {
    while (static_cast<int32_t>(pieces_.size()) < options_.vocab_size) {
      if (queue_.empty()) {
        throw Error({"the text is too poor for a vocabulary of this size",
                     {},
                     {},
                     std::to_string(options_.vocab_size) + " tokens",
                     std::to_string(pieces_.size()) + " tokens",
                     "give more text or a smaller size"});
      }
      const Candidate top = queue_.top();
      queue_.pop();
      const auto it = pairs_.find(top.key);
      if (it == pairs_.end() || it->second.count < 2) continue;
      if (it->second.count != top.count) {  // counts only fall between pushes
        if (it->second.count < top.count) queue_.push({it->second.count, top.key});
        continue;
      }
      const auto left = static_cast<int32_t>(top.key >> 32);
      const auto right = static_cast<int32_t>(top.key & 0xffffffffu);
      const int length = lengths_[left] + lengths_[right];
      if (length > options_.max_piece_characters) continue;
      std::string text = pieces_[left] + pieces_[right];
      const auto known = ids_.find(text);
      if (known != ids_.end() && known->second < n_atomic_) continue;  // spells a special token
      const int32_t result =
          known != ids_.end() ? known->second : add_piece(std::move(text), length);
      // A pair can come back when its left or right token is made in a second way.
      if (done_.insert(top.key).second) merges_.emplace_back(left, right);
      apply(left, right, result, std::exchange(it->second.words, {}));
    }
  }

  void apply(int32_t left, int32_t right, int32_t result, std::vector<int32_t> words) {
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    touched_.clear();
    for (int32_t w : words) {
      auto& s = words_[w].symbols;
      if (!holds(s, left, right)) continue;
      for (size_t i = 0; i + 1 < s.size(); ++i) change(s[i], s[i + 1], w, -1);
      size_t n = 0;
      for (size_t i = 0; i < s.size(); ++i) {
        const bool joined = i + 1 < s.size() && s[i] == left && s[i + 1] == right;
        s[n++] = joined ? result : s[i];
        if (joined) ++i;
      }
      s.resize(n);
      for (size_t i = 0; i + 1 < s.size(); ++i) change(s[i], s[i + 1], w, 1);
    }
    std::sort(touched_.begin(), touched_.end());
    touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
    for (uint64_t key : touched_) queue_.push({pairs_[key].count, key});
  }

  static bool holds(const std::vector<int32_t>& s, int32_t left, int32_t right) {
    for (size_t i = 0; i + 1 < s.size(); ++i) {
      if (s[i] == left && s[i + 1] == right) return true;
    }
    return false;
  }

  Vocab finish() {
    VocabBuilder builder;
    builder.reserve(static_cast<int64_t>(pieces_.size()), static_cast<int64_t>(merges_.size()));
    for (const std::string& piece : pieces_) builder.add_piece(piece);
    for (const auto& [left, right] : merges_) builder.add_merge(pieces_[left], pieces_[right]);
    return builder.finish();
  }

  const BpeTrainerOptions options_;
  std::vector<std::string> pieces_;
  std::vector<int> lengths_;  // in characters
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<std::pair<int32_t, int32_t>> merges_;
  int32_t n_atomic_ = 0;  // ids below are specials and bytes
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> queue_;
  std::unordered_set<uint64_t> done_;
  std::vector<uint64_t> touched_;  // pairs whose count may have risen
};

}  // namespace

Vocab train_bpe(std::string_view text, const BpeTrainerOptions& options) {
  if (options.max_newline_run < 1 || options.max_newline_run > 64) {
    throw Error({"bad longest run of newlines",
                 {},
                 {},
                 "1 to 64",
                 std::to_string(options.max_newline_run),
                 {}});
  }
  return Trainer(options).train(text);
}

}  // namespace carat::text
