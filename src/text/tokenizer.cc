#include "text/tokenizer.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/piece_hash.h"
#include "text/word_encoder.h"

namespace carat::text {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";
constexpr std::string_view kReplacement = "\xef\xbf\xbd";

bool is_special_type(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

// Not to be made by merging, nor to be merged further.
bool is_atomic(TokenType type) { return is_special_type(type) || type == TokenType::kByte; }

int first_class(std::string_view piece) {
  const auto c = static_cast<uint8_t>(piece.front());
  return c < 0x80 ? c : piece.starts_with(kSpaceMark) ? ' ' : 128;
}

int last_class(std::string_view piece) {
  const auto c = static_cast<uint8_t>(piece.back());
  return c < 0x80 ? c : piece.ends_with(kSpaceMark) ? ' ' : 128;
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t pair_hash(uint64_t key) { return mix64(key, 0x9e3779b97f4a7c15u); }

}  // namespace

Tokenizer::Tokenizer(Vocab vocab)
    : vocab_(std::make_unique<const Vocab>(std::move(vocab))), index_(*vocab_) {
  if (vocab_->byte_tokens.empty() && vocab_->special.unk == kNoToken) {
    throw Error({"the vocabulary cannot spell every text",
                 {},
                 {},
                 "the byte tokens <0x00> to <0xFF>, or <unk>",
                 {},
                 {}});
  }
  index_merges();
  index_characters();
  index_specials();
}

bool Tokenizer::is_special(int32_t id) const { return is_special_type(vocab_->types[id]); }

void Tokenizer::index_merges() {
  const auto& merges = vocab_->merges;
  uint64_t n_slots = 16;
  while (n_slots < 2 * static_cast<uint64_t>(merges.size())) n_slots *= 2;
  pairs_.assign(n_slots, {0, kNoToken, kNoToken});
  pair_mask_ = n_slots - 1;
  const auto atomic = [&](int32_t id) { return is_atomic(vocab_->types[id]); };
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Vocab::Merge& merge = merges[rank];
    if (atomic(merge.left) || atomic(merge.right) || atomic(merge.result)) continue;
    const uint64_t key = pair_key(merge.left, merge.right);
    uint64_t slot = pair_hash(key) & pair_mask_;
    while (pairs_[slot].rank != kNoToken && pairs_[slot].key != key) slot = (slot + 1) & pair_mask_;
    if (pairs_[slot].rank != kNoToken) continue;  // the first of equals has the lowest rank
    pairs_[slot] = {key, static_cast<int32_t>(rank), merge.result};
    joinable_[last_class(vocab_->piece(merge.left))].set(first_class(vocab_->piece(merge.right)));
  }
}

const Tokenizer::Pair* Tokenizer::find_pair(int32_t left, int32_t right) const {
  const uint64_t key = pair_key(left, right);
  for (uint64_t slot = pair_hash(key) & pair_mask_;; slot = (slot + 1) & pair_mask_) {
    const Pair& pair = pairs_[slot];
    if (pair.key == key && pair.rank != kNoToken) return &pair;
    if (pair.rank == kNoToken) return nullptr;
  }
}

void Tokenizer::index_characters() {
  const auto text_token = [&](std::string_view piece) {
    const int32_t id = index_.find(piece);
    return id == kNoToken || is_atomic(vocab_->types[id]) ? kNoToken : id;
  };
  for (int c = 0; c < 128; ++c) {
    const char text = static_cast<char>(c);
    ascii_[c] = text_token(c == ' ' ? kSpaceMark : std::string_view(&text, 1));
  }
  newline_runs_.push_back(kNoToken);
  for (int32_t id = 0; id < vocab_->size(); ++id) {
    const std::string_view piece = vocab_->piece(id);
    if (piece.empty() || piece.find_first_not_of('\n') != std::string_view::npos) continue;
    if (is_atomic(vocab_->types[id])) continue;
    if (newline_runs_.size() <= piece.size()) newline_runs_.resize(piece.size() + 1, kNoToken);
    newline_runs_[piece.size()] = id;
  }
}

void Tokenizer::index_specials() {
  for (int32_t id = 0; id < vocab_->size(); ++id) {
    const std::string_view piece = vocab_->piece(id);
    if (!is_special(id) || piece.empty()) continue;
    special_starts_.set(static_cast<uint8_t>(piece.front()));
    special_lengths_.push_back(piece.size());
  }
  std::sort(special_lengths_.begin(), special_lengths_.end(), std::greater<>());
  special_lengths_.erase(std::unique(special_lengths_.begin(), special_lengths_.end()),
                         special_lengths_.end());
}

size_t Tokenizer::match_special(std::string_view text, int32_t* id) const {
  if (!special_starts_[static_cast<uint8_t>(text.front())]) return 0;
  for (size_t length : special_lengths_) {
    if (length > text.size()) continue;
    *id = index_.find(text.substr(0, length));
    if (*id != kNoToken && is_special(*id)) return length;
  }
  return 0;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  encode(text, &ids);
  return ids;
}

void Tokenizer::encode(std::string_view text, std::vector<int32_t>* out) const {
  WordEncoder(*this, text, out).run();
}

std::vector<int32_t> Tokenizer::encode_with_specials(std::string_view text) const {
  std::vector<int32_t> ids;
  size_t begin = 0;  // of the plain text not encoded yet
  for (size_t at = 0; at < text.size();) {
    int32_t id;
    const size_t length = match_special(text.substr(at), &id);
    if (length == 0) {
      ++at;
      continue;
    }
    encode(text.substr(begin, at - begin), &ids);
    ids.push_back(id);
    begin = at += length;
  }
  encode(text.substr(begin), &ids);
  return ids;
}

void Tokenizer::append_bytes(int32_t id, bool show_specials, std::string* out) const {
  if (id < 0 || id >= vocab_->size()) {
    throw Error({"token id outside the vocabulary",
                 {},
                 {},
                 "0 to " + std::to_string(vocab_->size() - 1),
                 std::to_string(id),
                 {}});
  }
  std::string_view piece = vocab_->piece(id);
  const TokenType type = vocab_->types[id];
  if (is_special_type(type)) {
    if (show_specials) out->append(piece);
    return;
  }
  if (type == TokenType::kByte && !vocab_->byte_tokens.empty()) {
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'A' + 10; };
    out->push_back(static_cast<char>(digit(piece[3]) << 4 | digit(piece[4])));
    return;
  }
  for (size_t mark; (mark = piece.find(kSpaceMark)) != std::string_view::npos;) {
    out->append(piece, 0, mark);
    out->push_back(' ');
    piece.remove_prefix(mark + kSpaceMark.size());
  }
  out->append(piece);
}

std::string Tokenizer::decode_bytes(std::span<const int32_t> ids, bool show_specials) const {
  std::string bytes;
  for (int32_t id : ids) append_bytes(id, show_specials, &bytes);
  return bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool show_specials) const {
  StreamDecoder decoder(*this, show_specials);
  std::string text;
  for (int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

std::string StreamDecoder::push(int32_t id) {
  tokenizer_->append_bytes(id, show_specials_, &pending_);
  std::string out;
  emit(false, &out);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out;
  emit(true, &out);
  return out;
}

void StreamDecoder::emit(bool at_end, std::string* out) {
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Front front = utf8_front(rest);
    if (front.length > 0) {
      out->append(rest, 0, front.length);
      rest.remove_prefix(front.length);
    } else if (front.incomplete && !at_end) {
      break;
    } else {
      out->append(kReplacement);
      rest.remove_prefix(1);
    }
  }
  pending_.erase(0, pending_.size() - rest.size());
}

}  // namespace carat::text
