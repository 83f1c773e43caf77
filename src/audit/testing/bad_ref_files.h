// The table of io/testing/bad_files.h for .carat-ref files.
#pragma once

#include <limits>

#include "base/sha256.h"
#include "io/testing/bad_files.h"

namespace carat::audit::testing {

inline std::string with_sum(const std::string& bytes) {
  Sha256 sum;
  sum.update(std::as_bytes(std::span(bytes)));
  const Sha256::Digest digest = sum.digest();
  return bytes + std::string(reinterpret_cast<const char*>(digest.data()), 8);
}

inline std::string ref_header(const std::string& json, uint32_t version = 1) {
  return with_sum(io::testing::Bytes()
                      .raw("CARATREF")
                      .u32(version)
                      .u32(static_cast<uint32_t>(json.size()))
                      .raw(json));
}

inline std::string ref_json(const std::string& vocabulary = "10", const std::string& texts = "[]",
                            const std::string& domains = "[]") {
  return R"({"vocabulary":)" + vocabulary +
         R"(,"top":2,"samples":1,"origin":{"model":"m","model_sha256":"","engine":"","texts":)" +
         texts + R"(,"domains":)" + domains + R"(,"format":"","context":3,"min_context":1}})";
}

inline std::string ref_chunk(const std::string& payload) {
  return std::string(io::testing::Bytes().u64(payload.size())) + with_sum(payload);
}

inline std::string ref_end(uint64_t chunks) { return io::testing::Bytes().u64(0).u64(chunks); }

inline std::string ref_file(const std::string& payload) {
  return ref_header(ref_json()) + ref_chunk(payload) + ref_end(1);
}

// Tokens 2, 7, 9 of a vocabulary of 10, the row of position 0 or 1 or both.
inline std::string ref_tokens() { return std::string("\3\1\0\2\7\11\0", 7); }

struct RefRowFields {
  std::string head = std::string("\2\1", 2);  // listed tokens, samples
  float first = -0.7f, range = 1, next = -1.5f, tail = 0.2f, entropy = 1.2f;
  std::string tokens = std::string("\3\1", 2);      // 3 and 5
  std::string sample = std::string("\6\0\x3c", 3);  // 6, 7.5 below the least
  std::string bytes() const {
    return io::testing::Bytes()
        .raw(head)
        .f32(first)
        .f32(range)
        .f32(next)
        .f32(tail)
        .f32(entropy)
        .u16(0)
        .u16(65535)
        .raw(tokens)
        .raw(sample);
  }
};

inline void add_bad_ref_heads(std::vector<io::testing::BadFile>& out) {
  using io::testing::Bytes;
  const std::string row = RefRowFields().bytes();
  const std::string sound = ref_file(ref_tokens() + row);
  const std::string body = ref_chunk(ref_tokens() + row) + ref_end(1);
  out.push_back({"sound", sound, ""});
  out.push_back({"empty", "", "not a file of stored predictions"});
  out.push_back({"magic_only", "CARATREF", "the file ends early"});
  out.push_back({"version_2", ref_header(ref_json(), 2) + body, "another version of the format"});
  out.push_back({"header_huge", Bytes().raw("CARATREF").u32(1).u32(0xffffffffu).zeros(64),
                 "the header's length is out of range"});
  out.push_back({"header_past_end", Bytes().raw("CARATREF").u32(1).u32(57).zeros(64),
                 "expected at most 56, got 57"});
  std::string changed = sound;
  changed[20] = static_cast<char>(changed[20] ^ 1);
  out.push_back({"header_changed", changed, "the checksum is wrong"});
  const auto head = [&](const char* name, const std::string& json, const char* error) {
    out.push_back({name, ref_header(json) + body, error});
  };
  head("header_no_json", "{", "header");
  head("header_list", "[]", "header");
  head("vocabulary_missing", R"({"origin":{}})", "vocabulary");
  head("vocabulary_0", ref_json("0"), "vocabulary");
  head("vocabulary_huge", ref_json("16777217"), "vocabulary");
  head("vocabulary_text", ref_json("\"10\""), "vocabulary");
  head("vocabulary_too_small", ref_json("9"), "a number is out of range");
  head("texts_number", ref_json("10", "1"), "\"texts\" is not a list");
  head("text_number", ref_json("10", "[1]"), "header");
  head("domain_number", ref_json("10", "[]", "[1]"), "a domain is not a string");
  out.push_back(
      {"no_chunks", ref_header(ref_json()) + ref_end(0), "the number of chunks is wrong"});
  out.push_back({"end_missing", ref_header(ref_json()) + ref_chunk(ref_tokens() + row),
                 "the file ends early"});
  out.push_back({"end_count_missing", sound.substr(0, sound.size() - 8), "the file ends early"});
  out.push_back({"end_count_wrong",
                 ref_header(ref_json()) + ref_chunk(ref_tokens() + row) + ref_end(2),
                 "the number of chunks is wrong; expected 1, got 2"});
  out.push_back({"byte_too_many", sound + "x", "bytes follow the end"});
  out.push_back({"chunk_huge",
                 ref_header(ref_json()) + std::string(Bytes().u64(~uint64_t{0}).zeros(32)),
                 "a chunk reaches past the end of the file"});
  out.push_back({"chunk_past_end", ref_header(ref_json()) + std::string(Bytes().u64(25).zeros(32)),
                 "expected at most 24 bytes, got 25 bytes"});
}

inline void add_bad_ref_chunks(std::vector<io::testing::BadFile>& out) {
  const std::string row = RefRowFields().bytes();
  const auto chunk = [&](const char* name, const std::string& payload, const char* error) {
    out.push_back({name, ref_file(payload), error});
  };
  const auto tokens = [&](const char* name, std::string start, const char* error) {
    chunk(name, start + row, error);
  };
  const std::string huge(8, '\xff');
  tokens("tokens_huge", huge + "\x7f", "a number is out of range; expected tokens from 2");
  tokens("varint_endless", huge + huge, "a number has too many bytes");
  tokens("tokens_1", std::string("\1\1\0\2\0", 5), "expected tokens from 2");
  tokens("compared_0", std::string("\3\0\0\2\7\11", 6), "compared positions from 1 to 2, got 0");
  tokens("compared_3", std::string("\3\3\0\2\7\11\0\0\0", 9), "compared positions from 1 to 2");
  tokens("domain_1", std::string("\3\1\1\2\7\11\0", 7), "a chunk's domain has no name");
  tokens("token_10", std::string("\3\1\0\2\12\11\0", 7), "expected token from 0 to 9, got 10");
  tokens("position_2", std::string("\3\1\0\2\7\11\2", 7), "expected position from 0 to 1, got 2");
  tokens("positions_past_end", std::string("\3\2\0\2\7\11\1\0", 8), "position");
  tokens("row_missing", std::string("\3\2\0\2\7\11\0\0", 8), "the chunk ends early");
  chunk("row_too_many", ref_tokens() + row + row, "bytes follow the last row");
  chunk("rows_cut", ref_tokens() + row.substr(0, row.size() - 1), "the chunk ends early");

  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  const auto fields = [&](const char* name, const RefRowFields& f, const char* error) {
    chunk(name, ref_tokens() + f.bytes(), error);
  };
  fields("listed_0", {.head = std::string("\0\1", 2)}, "tokens listed from 1 to 10, got 0");
  fields("listed_11", {.head = "\13\1"}, "tokens listed from 1 to 10, got 11");
  fields("listed_past_end", {.head = "\12\1"}, "the chunk ends early");
  fields("samples_huge", {.head = std::string("\2\x80\x80\x04", 4)}, "the chunk ends early");
  fields("first_positive", {.first = 1}, "log p of the first");
  fields("first_nan", {.first = kNan}, "log p of the first");
  fields("range_negative", {.range = -1}, "range from 0");
  fields("range_infinite", {.range = kInfinite}, "range from 0");
  fields("next_positive", {.next = 1}, "log p of the next");
  fields("next_nan", {.next = kNan}, "log p of the next");
  fields("sound_next_never", {.next = -kInfinite}, "");
  fields("tail_negative", {.tail = -0.1f}, "tail from 0");
  fields("tail_above_1", {.tail = 1.1f}, "tail from 0");
  fields("tail_none", {.tail = 0}, "there are samples, but no tail");
  fields("entropy_nan", {.entropy = kNan}, "entropy");
  fields("entropy_huge", {.entropy = 1e9f}, "entropy");
  fields("listed_token_10", {.tokens = "\3\6"}, "expected token from 0 to 5, got 6");
  fields("sample_token_10", {.sample = std::string("\12\0\x3c", 3)}, "sampled token from 0 to 9");
  fields("sample_listed", {.sample = std::string("\5\0\x3c", 3)}, "a sampled token is listed");
  fields("sample_next", {.sample = std::string("\7\0\x3c", 3)}, "a sampled token is listed");
  out.push_back(
      {"tail_without_tokens",
       ref_header(ref_json("3")) +
           ref_chunk(std::string("\2\1\0\2\1\0", 6) + RefRowFields{.head = std::string("\2\0", 2),
                                                                   .tokens = std::string("\0\1", 2),
                                                                   .sample = ""}
                                                          .bytes()) +
           ref_end(1),
       "there is a tail, but every token is listed"});
}

inline std::vector<io::testing::BadFile> bad_ref_files() {
  std::vector<io::testing::BadFile> out;
  add_bad_ref_heads(out);
  add_bad_ref_chunks(out);
  return out;
}

}  // namespace carat::audit::testing
