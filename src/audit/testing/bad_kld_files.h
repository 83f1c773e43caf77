// The table of io/testing/bad_files.h for llama.cpp's files of reference predictions.
#pragma once

#include <limits>

#include "io/testing/bad_files.h"

namespace carat::audit::testing {

// Three tokens a chunk and five in the vocabulary: one row of 20 bytes a chunk.
inline io::testing::Bytes kld_chunk_of(uint32_t context, uint32_t vocab, uint32_t chunks) {
  return io::testing::Bytes().raw("_logits_").u32(context).u32(vocab).u32(chunks);
}

inline std::string kld_with_row(float scale, float floor) {
  return kld_chunk_of(3, 5, 1)
      .u32(4)
      .u32(0)
      .u32(2)
      .f32(scale)
      .f32(floor)
      .u16(65535)
      .u16(0)
      .u16(7)
      .u16(60000)
      .u16(1)
      .u16(0);
}

// Head and tokens of one chunk, and the row of 20 bytes.
inline std::string sound_kld() { return kld_with_row(1.0f / 65535, -1.5f); }

inline std::vector<io::testing::BadFile> bad_kld_files() {
  const std::string sound = sound_kld();
  const std::string rest = sound.substr(20);
  std::vector<io::testing::BadFile> out;
  out.push_back({"empty", "", "not a file of reference predictions"});
  out.push_back({"magic_cut", "_logits", "not a file of reference predictions"});
  out.push_back({"magic_other", "_logitz_" + sound.substr(8), "not a file of reference"});
  out.push_back({"magic_only", "_logits_", "the file ends in its head"});
  out.push_back({"head_cut", sound.substr(0, 19), "expected at least 20 bytes, got 19 bytes"});
  const auto head = [&](const char* name, uint32_t context, uint32_t vocab, uint32_t chunks,
                        const char* error) {
    out.push_back({name, kld_chunk_of(context, vocab, chunks).raw(rest), error});
  };
  constexpr uint32_t kMinus = 0xffffffffu, kMost = 0x7fffffffu;
  head("context_0", 0, 5, 1, "the context is out of range");
  head("context_2", 2, 5, 1, "expected 3 to 16777216, got 2");
  head("context_huge", kMinus, 5, 1, "the context is out of range");
  head("vocab_0", 3, 0, 1, "the vocabulary is out of range");
  head("vocab_negative", 3, kMinus, 1, "the vocabulary is out of range");
  head("vocab_huge", 3, kMost, 1, "the vocabulary is out of range");
  head("chunks_0", 3, 5, 0, "the number of chunks is out of range");
  head("chunks_negative", 3, 5, kMinus, "the number of chunks is out of range");
  head("chunks_huge", 3, 5, kMost, "another size than its head states");
  head("everything_huge", 1u << 24, 1u << 24, kMost, "does not fit 64 bits");
  head("chunks_2", 3, 5, 2, "expected 84 bytes for 2 chunks of 3 tokens, got 52 bytes");
  out.push_back({"row_cut", sound.substr(0, 51), "may have been interrupted"});
  out.push_back({"rows_missing", sound.substr(0, 32), "another size"});
  out.push_back({"tokens_cut", sound.substr(0, 31), "another size"});
  out.push_back({"byte_too_many", sound + "x", "expected 52 bytes"});
  std::string token = sound;
  token[24] = 5;
  out.push_back({"token_of_no_vocabulary", token, "token 1: a token is not of the vocabulary"});
  token[27] = '\x80';
  out.push_back({"token_negative", token, "a token is not of the vocabulary"});
  const char* const values = "a row does not hold log probabilities";
  out.push_back({"scale_negative", kld_with_row(-1, -1), values});
  out.push_back({"scale_nan", kld_with_row(std::numeric_limits<float>::quiet_NaN(), -1), values});
  out.push_back({"scale_huge", kld_with_row(1e30f, -1), values});
  out.push_back({"floor_nan", kld_with_row(0, std::numeric_limits<float>::quiet_NaN()), values});
  out.push_back(
      {"floor_infinite", kld_with_row(0, -std::numeric_limits<float>::infinity()), values});
  out.push_back({"probability_8", kld_with_row(0, 2), values});
  out.push_back({"sound", sound, ""});
  out.push_back({"sound_scale_0", kld_with_row(0, -1.6f), ""});
  return out;
}

}  // namespace carat::audit::testing
