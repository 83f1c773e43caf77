// A tokenizer's vocabulary as plain data: pieces, merges and special ids. Filled from
// tokenizer.json (here) or from a GGUF file's metadata (by whoever reads the file, through
// VocabBuilder); used by Tokenizer, and by writers of either format.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace carat::text {

inline constexpr int32_t kNoToken = -1;

// Values are those of GGUF's tokenizer.ggml.token_type.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,  // markers of the chat format, <bos> and the like: never made from plain text
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,  // <0x00> .. <0xFF>
};

// Ids of Gemma 4's markers, found by text; kNoToken where the vocabulary lacks one.
struct SpecialIds {
  int32_t pad = kNoToken, eos = kNoToken, bos = kNoToken, unk = kNoToken, mask = kNoToken;
  // <|tool> <tool|>
  int32_t tool_begin = kNoToken, tool_end = kNoToken;
  // <|tool_call> <tool_call|>
  int32_t tool_call_begin = kNoToken, tool_call_end = kNoToken;
  // <|tool_response> <tool_response|>
  int32_t tool_response_begin = kNoToken, tool_response_end = kNoToken;
  // <|"|> <|think|>
  int32_t quote = kNoToken, think = kNoToken;
  // <|channel> <channel|>
  int32_t channel_begin = kNoToken, channel_end = kNoToken;
  // <|turn> <turn|>
  int32_t turn_begin = kNoToken, turn_end = kNoToken;
  // <|image> <|image|> <image|>
  int32_t image_begin = kNoToken, image = kNoToken, image_end = kNoToken;
  // <|audio> <|audio|> <audio|>
  int32_t audio_begin = kNoToken, audio = kNoToken, audio_end = kNoToken;
  // <|video|>
  int32_t video = kNoToken;

  // Whether turns can be written with this vocabulary.
  bool has_turns() const { return bos >= 0 && turn_begin >= 0 && turn_end >= 0; }
};

// A row of the table of markers. The order is that of the ids in the published vocabulary.
struct SpecialToken {
  const char* text;
  int32_t SpecialIds::*id;
  const char* config_key;  // its name in tokenizer_config.json
  TokenType gguf_type;     // kUserDefined for those that other programs print
};
std::span<const SpecialToken> special_tokens();

struct Vocab {
  // ranks are indices: merges[0] is made first
  struct Merge {
    int32_t left, right, result;
  };

  std::string arena;              // the pieces one after the other
  std::vector<uint32_t> offsets;  // n + 1 places in the arena
  std::vector<TokenType> types;   // [n]; every marker is kControl here, whatever the file said
  std::vector<float> scores;      // [n] or empty; carried along, not used for BPE
  std::vector<Merge> merges;
  SpecialIds special;
  std::vector<int32_t> byte_tokens;  // [256] ids of <0xXX>, or empty without byte fallback
  bool add_bos = true;               // a raw prompt starts with <bos>
  // Ids that end generation, ascending: <eos>, <turn|> and <|tool_response> as far as they exist.
  // A checkpoint's generation_config may replace them.
  std::vector<int32_t> stop_ids;
  std::vector<int32_t> suppress_ids;  // never to be sampled (GGUF's suppress_tokens)

  int32_t size() const { return static_cast<int32_t>(types.size()); }
  // REQUIRES: 0 <= id < size(). The view lives as long as the arena.
  std::string_view piece(int32_t id) const {
    return std::string_view(arena).substr(offsets[id], offsets[id + 1] - offsets[id]);
  }
  bool is_stop(int32_t id) const {
    for (int32_t stop : stop_ids) {
      if (stop == id) return true;
    }
    return false;
  }
};

// The type to write into a GGUF file (markers that other programs print are user-defined there).
[[nodiscard]] TokenType gguf_token_type(const Vocab& vocab, int32_t id);

// Text to id, over the pieces of a Vocab that outlives it and does not change.
class PieceIndex {
 public:
  PieceIndex() = default;
  // Throws Error if two ids have the same piece.
  explicit PieceIndex(const Vocab& vocab);
  // kNoToken if there is no such piece.
  [[nodiscard]] int32_t find(std::string_view piece) const;

 private:
  const Vocab* vocab_ = nullptr;
  std::vector<int32_t> slots_;  // open addressing, kNoToken = free
  uint64_t mask_ = 0;
};

// Builds a Vocab: all pieces in the order of their ids, then all merges in the order of their
// ranks, then finish(). Every call throws Error on input that makes no sense; the caller adds the
// file's name.
class VocabBuilder {
 public:
  VocabBuilder();
  ~VocabBuilder();
  VocabBuilder(const VocabBuilder&) = delete;
  VocabBuilder& operator=(const VocabBuilder&) = delete;

  void reserve(int64_t n_pieces, int64_t n_merges);
  // The next id. REQUIRES: no merge was added yet.
  void add_piece(std::string_view piece, TokenType type = TokenType::kNormal);
  void add_score(float score);  // for the next id without one; none at all, or one for each piece
  // Both parts and their concatenation must be pieces.
  void add_merge(std::string_view left, std::string_view right);
  // GGUF's and older tokenizer.json's form "left right". Pieces hold U+2581 for a space, so the
  // plain space divides; it is not looked for at byte 0.
  void add_merge(std::string_view left_and_right);
  // Finds markers and byte tokens by text, sets stop_ids. The builder is empty afterwards.
  [[nodiscard]] Vocab finish();

 private:
  void index_pieces();
  std::unique_ptr<Vocab> vocab_;
  std::unique_ptr<PieceIndex> index_;
};

// Reads a Hugging Face tokenizer.json of Gemma 4's kind: model BPE with byte fallback, spaces
// written as U+2581. Merges may be ["a","b"] or "a b". Other kinds of tokenizer, holes in the ids
// and merges of unknown pieces are Errors. The text is not kept and no document tree is built.
[[nodiscard]] Vocab vocab_from_tokenizer_json(std::string_view text);

// As above from a file; errors carry its path.
[[nodiscard]] Vocab read_tokenizer_json(const std::string& path);

// The text of a tokenizer.json with the structure of Gemma 4's, and of the tokenizer_config.json
// beside it. REQUIRES: pieces are valid UTF-8.
[[nodiscard]] std::string to_tokenizer_json(const Vocab& vocab);
[[nodiscard]] std::string to_tokenizer_config_json(const Vocab& vocab);

}  // namespace carat::text
