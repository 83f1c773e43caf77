#include "text/vocab.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "text/piece_hash.h"

namespace carat::text {
namespace {

constexpr int64_t kMaxPieces = int64_t{1} << 22;
constexpr int64_t kMaxMerges = int64_t{1} << 24;
constexpr int64_t kMaxArena = int64_t{1} << 30;

constexpr TokenType kControl = TokenType::kControl;
constexpr TokenType kUserDefined = TokenType::kUserDefined;

constexpr SpecialToken kSpecialTokens[] = {
    {"<pad>", &SpecialIds::pad, "pad_token", kControl},
    {"<eos>", &SpecialIds::eos, "eos_token", kControl},
    {"<bos>", &SpecialIds::bos, "bos_token", kControl},
    {"<unk>", &SpecialIds::unk, "unk_token", kControl},
    {"<mask>", &SpecialIds::mask, "mask_token", kControl},
    {"<|tool>", &SpecialIds::tool_begin, "std_token", kControl},
    {"<tool|>", &SpecialIds::tool_end, "etd_token", kControl},
    {"<|tool_call>", &SpecialIds::tool_call_begin, "stc_token", kUserDefined},
    {"<tool_call|>", &SpecialIds::tool_call_end, "etc_token", kUserDefined},
    {"<|tool_response>", &SpecialIds::tool_response_begin, "str_token", kUserDefined},
    {"<tool_response|>", &SpecialIds::tool_response_end, "etr_token", kUserDefined},
    {"<|\"|>", &SpecialIds::quote, "escape_token", kUserDefined},
    {"<|think|>", &SpecialIds::think, "think_token", kControl},
    {"<|channel>", &SpecialIds::channel_begin, "soc_token", kUserDefined},
    {"<channel|>", &SpecialIds::channel_end, "eoc_token", kUserDefined},
    {"<|turn>", &SpecialIds::turn_begin, "sot_token", kControl},
    {"<turn|>", &SpecialIds::turn_end, "eot_token", kControl},
    {"<|image>", &SpecialIds::image_begin, "boi_token", kControl},
    {"<|audio>", &SpecialIds::audio_begin, "boa_token", kControl},
    {"<|image|>", &SpecialIds::image, "image_token", kControl},
    {"<|audio|>", &SpecialIds::audio, "audio_token", kControl},
    {"<image|>", &SpecialIds::image_end, "eoi_token", kControl},
    {"<audio|>", &SpecialIds::audio_end, "eoa_token", kControl},
    {"<|video|>", &SpecialIds::video, "video_token", kControl},
};

std::string quoted(std::string_view piece) {
  std::string s = "\"";
  for (char c : piece.substr(0, 40)) {
    if (c == '\n') {
      s += "\\n";
    } else {
      s += c;
    }
  }
  return s + (piece.size() > 40 ? "...\"" : "\"");
}

void find_bytes(const PieceIndex& index, Vocab* vocab) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::vector<int32_t> ids(256);
  for (int b = 0; b < 256; ++b) {
    const char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    ids[b] = index.find({name, sizeof(name)});
    if (ids[b] == kNoToken) return;
  }
  for (int32_t id : ids) vocab->types[id] = TokenType::kByte;
  vocab->byte_tokens = std::move(ids);
}

}  // namespace

std::span<const SpecialToken> special_tokens() { return kSpecialTokens; }

TokenType gguf_token_type(const Vocab& vocab, int32_t id) {
  for (const SpecialToken& token : kSpecialTokens) {
    if (vocab.special.*token.id == id) return token.gguf_type;
  }
  return vocab.types[id];
}

PieceIndex::PieceIndex(const Vocab& vocab) : vocab_(&vocab) {
  uint64_t n_slots = 16;
  while (n_slots < 2 * static_cast<uint64_t>(vocab.size())) n_slots *= 2;
  slots_.assign(n_slots, kNoToken);
  mask_ = n_slots - 1;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const std::string_view piece = vocab.piece(id);
    uint64_t slot = piece_hash(piece) & mask_;
    for (; slots_[slot] != kNoToken; slot = (slot + 1) & mask_) {
      if (vocab.piece(slots_[slot]) == piece) {
        throw Error({"two tokens have the same piece",
                     {},
                     "tokens " + std::to_string(slots_[slot]) + " and " + std::to_string(id),
                     {},
                     quoted(piece),
                     {}});
      }
    }
    slots_[slot] = id;
  }
}

int32_t PieceIndex::find(std::string_view piece) const {
  if (slots_.empty()) return kNoToken;
  uint64_t slot = piece_hash(piece) & mask_;
  for (; slots_[slot] != kNoToken; slot = (slot + 1) & mask_) {
    if (vocab_->piece(slots_[slot]) == piece) return slots_[slot];
  }
  return kNoToken;
}

VocabBuilder::VocabBuilder() : vocab_(std::make_unique<Vocab>()) { vocab_->offsets.push_back(0); }
VocabBuilder::~VocabBuilder() = default;

void VocabBuilder::reserve(int64_t n_pieces, int64_t n_merges) {
  n_pieces = std::clamp<int64_t>(n_pieces, 0, kMaxPieces);
  vocab_->offsets.reserve(n_pieces + 1);
  vocab_->types.reserve(n_pieces);
  vocab_->merges.reserve(std::clamp<int64_t>(n_merges, 0, kMaxMerges));
}

void VocabBuilder::add_piece(std::string_view piece, TokenType type) {
  CHECK(index_ == nullptr);
  const int64_t id = vocab_->size();
  if (id >= kMaxPieces) {
    throw Error({"the vocabulary is too large",
                 {},
                 {},
                 "at most " + std::to_string(kMaxPieces) + " tokens",
                 {},
                 {}});
  }
  if (static_cast<int64_t>(vocab_->arena.size() + piece.size()) > kMaxArena) {
    throw Error(
        {"the vocabulary's text is too large", {}, "token " + std::to_string(id), {}, {}, {}});
  }
  const auto value = static_cast<uint8_t>(type);
  if (value < 1 || value > 6) {
    throw Error({"unknown token type",
                 {},
                 "token " + std::to_string(id),
                 "1 to 6",
                 std::to_string(value),
                 {}});
  }
  vocab_->arena.append(piece);
  vocab_->offsets.push_back(static_cast<uint32_t>(vocab_->arena.size()));
  vocab_->types.push_back(type);
}

void VocabBuilder::add_score(float score) { vocab_->scores.push_back(score); }

void VocabBuilder::index_pieces() {
  if (index_ == nullptr) index_ = std::make_unique<PieceIndex>(*vocab_);
}

void VocabBuilder::add_merge(std::string_view left, std::string_view right) {
  index_pieces();
  const std::string_view parts[] = {left, right};
  int32_t ids[2];
  for (int i = 0; i < 2; ++i) {
    ids[i] = index_->find(parts[i]);
    if (ids[i] == kNoToken || parts[i].empty()) {
      throw Error({"a merge joins a piece that is not in the vocabulary",
                   {},
                   "merge " + std::to_string(vocab_->merges.size()),
                   {},
                   quoted(parts[i]),
                   {}});
    }
  }
  char small[256];
  std::string large;
  const size_t size = left.size() + right.size();
  char* joined = small;
  if (size > sizeof(small)) {
    large.resize(size);
    joined = large.data();
  }
  std::memcpy(joined, left.data(), left.size());
  std::memcpy(joined + left.size(), right.data(), right.size());
  const int32_t result = index_->find({joined, size});
  if (result == kNoToken) {
    throw Error({"the result of a merge is not in the vocabulary",
                 {},
                 "merge " + std::to_string(vocab_->merges.size()),
                 {},
                 quoted({joined, size}),
                 {}});
  }
  if (static_cast<int64_t>(vocab_->merges.size()) >= kMaxMerges) {
    throw Error({"too many merges", {}, {}, "at most " + std::to_string(kMaxMerges), {}, {}});
  }
  vocab_->merges.push_back({ids[0], ids[1], result});
}

void VocabBuilder::add_merge(std::string_view left_and_right) {
  const size_t space = left_and_right.find(' ', 1);
  if (space == std::string_view::npos) {
    throw Error({"a merge has no space between its two pieces",
                 {},
                 "merge " + std::to_string(vocab_->merges.size()),
                 {},
                 quoted(left_and_right),
                 {}});
  }
  add_merge(left_and_right.substr(0, space), left_and_right.substr(space + 1));
}

Vocab VocabBuilder::finish() {
  index_pieces();
  if (vocab_->size() == 0) throw Error("the vocabulary is empty");
  if (!vocab_->scores.empty() && vocab_->scores.size() != vocab_->types.size()) {
    throw Error({"the number of scores is not the number of tokens",
                 {},
                 {},
                 std::to_string(vocab_->types.size()),
                 std::to_string(vocab_->scores.size()),
                 {}});
  }
  find_bytes(*index_, vocab_.get());
  SpecialIds& special = vocab_->special;
  for (const SpecialToken& token : kSpecialTokens) {
    const int32_t id = special.*token.id = index_->find(token.text);
    if (id != kNoToken) vocab_->types[id] = TokenType::kControl;
  }
  for (int32_t id : {special.eos, special.turn_end, special.tool_response_begin}) {
    if (id != kNoToken) vocab_->stop_ids.push_back(id);
  }
  std::sort(vocab_->stop_ids.begin(), vocab_->stop_ids.end());
  index_.reset();
  Vocab result = std::move(*vocab_);
  *vocab_ = Vocab{};
  vocab_->offsets.push_back(0);
  return result;
}

}  // namespace carat::text
