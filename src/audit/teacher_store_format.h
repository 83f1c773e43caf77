// The bytes of .carat-ref files: what a teacher expected, in 1 to 2 kB per position whatever the
// vocabulary. audit/teacher_store.h reads and writes whole files.
//
// Little-endian; a varint is 7 bits a byte, lowest first, at most 9 bytes.
//
//   file   := "CARATREF" u32:version u32:bytes json{bytes} sum  chunk*  u64:0 u64:chunks
//   chunk  := u64:bytes payload{bytes} sum
//   payload:= varint:tokens varint:compared varint:domain
//             varint:token{tokens}
//             varint:position{compared}   the first, then each minus the one before minus 1
//             row{compared}
//   row    := varint:top varint:samples
//             f32:first f32:range f32:next f32:tail f32:entropy
//             u16:code{top} varint:token{top}            as positions are
//             { varint:token u16:gap }{samples}          each token minus the one before
//
// A sum is the first 8 bytes of the SHA-256 of what stands before it (of a chunk: its payload). The
// JSON is {"vocabulary", "top", "samples", "origin": {...}}.
//
// A row lists the `top` most likely tokens: log p = first - range * code / 65535. `next` is log p
// of the token that really follows, listed or not. `tail` is the probability of all others
// together, `entropy` that of the whole distribution in nats; both were summed over the full
// vocabulary. The samples were drawn from the tail, each with a probability proportional to p, at
// even distances along the sum: log p = (the least of the listed) - gap. One token may be drawn
// several times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "audit/corpus.h"

namespace carat::audit {

inline constexpr int64_t kMostRefVocab = int64_t{1} << 24;
inline constexpr int64_t kMostRefTop = 65536;
inline constexpr int64_t kMostRefSamples = 65536;

struct RefToken {
  int32_t token = 0;
  float log_p = 0;
};

struct RefRow {
  float next_log_p = 0;  // may be -infinity
  float tail = 0;        // 0 to 1
  float entropy = 0;
  std::vector<RefToken> top;      // ascending by token, at least one
  std::vector<RefToken> samples;  // ascending; of tokens neither listed nor next; none if tail is 0
};

// Encodes one row. `draw` in [0, 1) decides which samples are drawn. REQUIRES: logits are finite or
// -infinity, one at least finite; next is a token; 1 <= top <= kMostRefTop; samples <=
// kMostRefSamples.
[[nodiscard]] std::string encode_ref_row(std::span<const float> logits, int32_t next, int64_t top,
                                         int64_t samples, double draw);

// A row that begins at `at`, which is moved behind it. Throws Error for anything that no teacher
// could have said.
[[nodiscard]] RefRow decode_ref_row(std::span<const std::byte> payload, size_t& at,
                                    int64_t vocab_size, int32_t next);

struct RefChunk {
  Chunk chunk;
  std::vector<size_t> row_at;  // of each compared position, in the payload
};

// A payload without its rows.
[[nodiscard]] std::string encode_ref_chunk(const Chunk& chunk);
// Only what stands before the rows; row_at holds the first's.
[[nodiscard]] RefChunk decode_ref_chunk(std::span<const std::byte> payload, int64_t vocab_size);
// Also every row, which is thereby checked.
[[nodiscard]] RefChunk decode_ref_rows(std::span<const std::byte> payload, int64_t vocab_size);

}  // namespace carat::audit
