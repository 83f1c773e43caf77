// The page list that attention reads: plain data, filled by model/kv_cache.
//
// A page holds kKvPageTokens consecutive positions of one layer of one sequence, position p in
// page p / kKvPageTokens. Layout of a page, all parts contiguous:
//   f32, f16  K, V  [n_kv_heads][kKvPageTokens][head_dim] each
//   int8      K         [n_kv_heads][dim / 4][kKvPageTokens][4]: 4 elements of a position together
//             V         [n_kv_heads][dim / 16][kKvPageTokens / 4][16][4]: 4 positions together
//             K, V scales  [n_kv_heads][kKvPageTokens] float each
// dim is head_dim rounded up to 16. An int8 page stores code + 128 as a byte, in the order in which
// a sum of products reads it; what pads dim, and places not yet written, may hold anything.
// int8 codes: value = code * scale, scale = max|x| / 127 over the head's vector of one position,
// code = round-half-even(x * (1 / scale)); a vector below 2^-100 has scale 0, one that is not
// finite scale NaN, both with codes 0. Models that state a scale have that one at every position
// and codes from -128 on (ops.h, AttentionCall::k_scale).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace carat::kernels {

enum class KvType : uint8_t { kF32, kF16, kI8 };

inline constexpr int64_t kKvPageTokens = 64;

inline constexpr int64_t kv_element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
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

struct KvLayer {
  KvType type = KvType::kF32;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  // pages[i] covers positions [i * kKvPageTokens, (i + 1) * kKvPageTokens). A page that fell out
  // of a local layer's window is nullptr and is never read.
  std::span<std::byte* const> pages;

  int64_t stored_dim() const { return type == KvType::kI8 ? (head_dim + 15) / 16 * 16 : head_dim; }
  int64_t half_elements() const { return n_kv_heads * kKvPageTokens * stored_dim(); }
  int64_t page_bytes() const {
    const int64_t scales = type == KvType::kI8 ? 2 * n_kv_heads * kKvPageTokens * 4 : 0;
    return 2 * half_elements() * kv_element_bytes(type) + scales;
  }
};

// A row of a batch: which sequence it belongs to and its position there.
struct RowRef {
  int32_t sequence = 0;
  int32_t position = 0;
};

}  // namespace carat::kernels
