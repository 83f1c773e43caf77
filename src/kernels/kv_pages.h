// The page list that attention reads: plain data, filled by model/kv_cache.
//
// A page holds kKvPageTokens consecutive positions of one layer of one sequence, position p in
// page p / kKvPageTokens. Layout of a page, all parts contiguous:
//   K      [n_kv_heads][kKvPageTokens][head_dim]   elements of the page's type
//   V      the same
//   K, V scales  [n_kv_heads][kKvPageTokens] float each, int8 only: value = code * scale
// int8 codes: scale = max|x| / 127 over the head's vector of one position, code =
// round-half-even(x * (1 / scale)); a vector below 2^-100 has scale 0, one that is not finite scale
// NaN, both with codes 0.
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

struct KvLayer {
  KvType type = KvType::kF32;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  // pages[i] covers positions [i * kKvPageTokens, (i + 1) * kKvPageTokens). A page that fell out
  // of a local layer's window is nullptr and is never read.
  std::span<std::byte* const> pages;

  int64_t half_elements() const { return n_kv_heads * kKvPageTokens * head_dim; }
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
