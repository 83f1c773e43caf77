// The page list that attention reads: plain data, filled by model/kv_cache.
//
// A page holds kKvPageTokens consecutive positions of one layer of one sequence, position p in
// page p / kKvPageTokens. Layout of a page, all parts contiguous:
//   f32, f16  K, V  [n_kv_heads][kKvPageTokens][head_dim] each
//   int8      K         [n_kv_heads][dim / 4][kKvPageTokens][4]: 4 elements of a position together
//             V         [n_kv_heads][dim / 16][kKvPageTokens / 4][16][4]: 4 positions together
//             K, V scales  [n_kv_heads][kKvPageTokens] float each
//   int4      K         [n_kv_heads][dim / 8][kKvPageTokens][4]: a byte has element 8 i + j in its
//                       low half, 8 i + 4 + j in its high one
//             V         [n_kv_heads][dim / 32][kKvPageTokens / 4][16][4]: elements 32 i + j and
//                       32 i + 16 + j
//             K, V blocks  [n_kv_heads][dim / 16][kKvPageTokens] bytes each
//             K, V scales  as above
// dim is head_dim rounded up to 16, for int4 to 32. An int8 page stores code + 128 as a byte, in
// the order in which a sum of products reads it; what pads dim, and places not yet written, may
// hold anything. int8 codes: value = code * scale, scale = max|x| / 127 over the head's vector of
// one position, code = round-half-even(x * (1 / scale)); a vector below 2^-100 has scale 0, one
// that is not finite scale NaN, both with codes 0. Models that state a scale have that one at every
// position and codes from -128 on (ops.h, AttentionCall::k_scale). int4: a short way to write int8
// codes, at 4.5 bits an element and 32 a vector. 16 elements share a byte of a step s = 1 + low
// half and a zero z = high half: code = s * (half byte - z). How s and z are chosen: scalar/kv4.h.
// int4r is int4 of vectors that were rotated before (kv_rotation.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace carat::kernels {

enum class KvType : uint8_t { kF32, kF16, kI8, kI4, kI4R };

inline constexpr int64_t kKvPageTokens = 64;
// Elements of an int4 vector that share a step and a zero.
inline constexpr int64_t kKv4Block = 16;

inline constexpr bool is_kv4(KvType type) { return type == KvType::kI4 || type == KvType::kI4R; }
// Types that hold codes, for sums in integers.
inline constexpr bool is_kv_codes(KvType type) { return type == KvType::kI8 || is_kv4(type); }

// Elements that a head's vector of head_dim takes in a page.
inline constexpr int64_t kv_stored_dim(KvType type, int64_t head_dim) {
  const int64_t unit = is_kv4(type) ? 32 : type == KvType::kI8 ? 16 : 1;
  return (head_dim + unit - 1) / unit * unit;
}
// Bytes of a head's K or V of one position: its elements, and all that belongs to them.
inline constexpr int64_t kv_element_bytes(KvType type, int64_t head_dim) {
  const int64_t dim = kv_stored_dim(type, head_dim);
  return type == KvType::kF32   ? 4 * dim
         : type == KvType::kF16 ? 2 * dim
         : is_kv4(type)         ? dim / 2
                                : dim;
}
inline constexpr int64_t kv_block_bytes(KvType type, int64_t head_dim) {
  return is_kv4(type) ? kv_stored_dim(type, head_dim) / kKv4Block : 0;
}
inline constexpr int64_t kv_vector_bytes(KvType type, int64_t head_dim) {
  const int64_t scale = is_kv_codes(type) ? 4 : 0;
  return kv_element_bytes(type, head_dim) + kv_block_bytes(type, head_dim) + scale;
}

// Heads of more elements than this are refused: sums over int8 pages are exact up to it.
inline constexpr int64_t kMaxHeadDim = 1024;

// Where element d of the head's vector at `place` of the page lies in an int8 page's K and V.
inline constexpr int64_t k_code_at(int64_t d, int64_t place) {
  return (d / 4 * kKvPageTokens + place) * 4 + d % 4;
}
inline constexpr int64_t v_code_at(int64_t d, int64_t place) {
  return ((d / 16 * (kKvPageTokens / 4) + place / 4) * 16 + d % 16) * 4 + place % 4;
}
// The same for int4: d is the element in the low half.
inline constexpr int64_t k_pair_at(int64_t d, int64_t place) {
  return (d / 8 * kKvPageTokens + place) * 4 + d % 4;
}
inline constexpr int64_t v_pair_at(int64_t d, int64_t place) {
  return ((d / 32 * (kKvPageTokens / 4) + place / 4) * 16 + d % 16) * 4 + place % 4;
}

struct KvLayer {
  KvType type = KvType::kF32;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  // pages[i] covers positions [i * kKvPageTokens, (i + 1) * kKvPageTokens). A page that fell out
  // of a local layer's window is nullptr and is never read.
  std::span<std::byte* const> pages;

  int64_t page_bytes() const {
    return 2 * n_kv_heads * kKvPageTokens * kv_vector_bytes(type, head_dim);
  }
};

// A row of a batch: which sequence it belongs to and its position there.
struct RowRef {
  int32_t sequence = 0;
  int32_t position = 0;
};

}  // namespace carat::kernels
