#include "tokenizer_vocab.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "base/utf8.h"

namespace carat::bench {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

constexpr const char* kOnsets[] = {"",   "b",  "c",  "d",  "f",  "g",  "h",  "l",  "m",
                                   "n",  "p",  "r",  "s",  "t",  "v",  "w",  "st", "th",
                                   "ch", "sh", "pr", "tr", "br", "cl", "gr", "wh"};
constexpr const char* kVowels[] = {"a", "e",  "i",  "o",  "u",  "e",  "a",
                                   "i", "ea", "ou", "io", "ai", "ee", "y"};
constexpr const char* kCodas[] = {"",   "",   "n",  "r",  "s",  "t",  "l",   "d",  "m",   "nd",
                                  "ng", "nt", "st", "ck", "ll", "ss", "ght", "rs", "ble", "ve"};

template <size_t N>
const char* pick(const char* const (&list)[N], Rng* rng) {
  return list[rng->below(N)];
}

std::string make_word(Rng* rng) {
  std::string word;
  const uint64_t n = 1 + rng->below(2) + rng->below(2);
  for (uint64_t i = 0; i < n; ++i) {
    word += pick(kOnsets, rng);
    word += pick(kVowels, rng);
    word += pick(kCodas, rng);
  }
  return word;
}

class Pieces {
 public:
  bool full() const { return static_cast<int64_t>(list_.size()) == kRealPieces; }
  bool has(const std::string& piece) const { return set_.contains(piece); }
  void add(std::string piece) {
    if (!full() && set_.insert(piece).second) list_.push_back(std::move(piece));
  }
  // The piece and what it is made of, one character more each time.
  void add_from_the_front(const std::string& piece) {
    for (size_t end = 0; end < piece.size();) {
      end += utf8_front(std::string_view(piece).substr(end)).length;
      add(piece.substr(0, end));
    }
  }
  const std::vector<std::string>& list() const { return list_; }

 private:
  std::vector<std::string> list_;
  std::unordered_set<std::string> set_;
};

void add_fixed(Pieces* pieces) {
  for (const text::SpecialToken& token : text::special_tokens()) pieces->add(token.text);
  constexpr char kHex[] = "0123456789ABCDEF";
  for (int b = 0; b < 256; ++b) pieces->add({'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'});
  for (int n = 1; n <= 31; ++n) pieces->add(std::string(n, '\n'));
  std::string spaces;
  for (int n = 1; n <= 31; ++n) pieces->add(spaces += kSpaceMark);
  for (char c = '!'; c <= '~'; ++c) pieces->add(std::string(1, c));
  pieces->add_from_the_front(std::string(16, 'a'));
  constexpr std::pair<uint32_t, uint32_t> kScripts[] = {
      {0xa1, 0x24f}, {0x391, 0x3c9}, {0x410, 0x44f}, {0x3041, 0x30fe}, {0x4e00, 0x6200}};
  for (const auto& [first, last] : kScripts) {
    for (uint32_t c = first; c <= last; ++c) {
      std::string text;
      append_utf8(c, &text);
      pieces->add(text);
    }
  }
}

using Merge = std::pair<std::string, std::string>;

// All splits of a piece into two pieces, the one that adds a character at the end first.
std::vector<Merge> splits(const Pieces& pieces, const std::string& piece) {
  std::vector<Merge> found;
  for (size_t at = piece.size() - 1; at > 0; --at) {
    if ((static_cast<uint8_t>(piece[at]) & 0xc0) == 0x80) continue;
    const std::string left = piece.substr(0, at), right = piece.substr(at);
    if (pieces.has(left) && pieces.has(right)) found.emplace_back(left, right);
  }
  return found;
}

std::string make_sample(const std::vector<std::string>& lexicon, int64_t bytes, Rng* rng) {
  std::string text;
  bool sentence_start = true;
  while (static_cast<int64_t>(text.size()) < bytes) {
    const double u = rng->uniform();  // about 1/rank
    const auto rank = static_cast<size_t>(std::pow(static_cast<double>(lexicon.size()), u)) - 1;
    std::string word = lexicon[std::min(rank, lexicon.size() - 1)];
    if (sentence_start) word[0] = static_cast<char>(word[0] & ~32);
    text += word;
    const uint64_t end = rng->below(40);
    sentence_start = end < 3;
    text += end < 3 ? "." : end < 6 ? "," : "";
    text += sentence_start && rng->below(6) == 0 ? "\n\n" : " ";
  }
  return text;
}

}  // namespace

GeneratedVocab generate_vocab(uint64_t seed, int64_t sample_bytes) {
  Rng rng(seed);
  Pieces pieces;
  add_fixed(&pieces);
  const size_t n_fixed = pieces.list().size();
  std::vector<std::string> lexicon;
  std::unordered_set<std::string> known;
  while (lexicon.size() < 60000) {
    std::string word = make_word(&rng);
    if (!known.insert(word).second) continue;
    if (lexicon.size() < 48000) {
      pieces.add_from_the_front(std::string(kSpaceMark) + word);
      pieces.add_from_the_front(word);
      if (lexicon.size() % 4 == 0) {
        std::string capital = word;
        capital[0] = static_cast<char>(capital[0] & ~32);
        pieces.add_from_the_front(capital);
      }
    }
    lexicon.push_back(std::move(word));
  }
  while (!pieces.full()) {  // pairs of characters of other scripts
    std::string pair;
    append_utf8(0x4e00 + static_cast<uint32_t>(rng.below(5000)), &pair);
    append_utf8(0x4e00 + static_cast<uint32_t>(rng.below(5000)), &pair);
    pieces.add(pair);
  }

  std::vector<std::vector<Merge>> merges;
  int64_t n_merges = 0;
  for (size_t i = text::special_tokens().size() + 256; i < pieces.list().size(); ++i) {
    merges.push_back(splits(pieces, pieces.list()[i]));
    n_merges += static_cast<int64_t>(merges.back().size());
    CHECK(i < n_fixed || !merges.back().empty());
  }
  CHECK(n_merges >= kRealMerges);
  // The last pieces give up all splits but the first until the number fits.
  for (size_t i = merges.size(); i-- > 0 && n_merges > kRealMerges;) {
    while (merges[i].size() > 1 && n_merges > kRealMerges) {
      merges[i].pop_back();
      --n_merges;
    }
  }
  CHECK(n_merges == kRealMerges);

  text::VocabBuilder builder;
  builder.reserve(kRealPieces, kRealMerges);
  for (const std::string& piece : pieces.list()) builder.add_piece(piece);
  for (const auto& list : merges) {
    for (const auto& [left, right] : list) builder.add_merge(left, right);
  }
  return {builder.finish(), make_sample(lexicon, sample_bytes, &rng)};
}

}  // namespace carat::bench
