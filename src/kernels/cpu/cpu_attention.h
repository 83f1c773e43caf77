// What the two files of CpuOps' attention share; nobody else includes it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_ops_impl.h"
#include "kernels/scalar/attention.h"

namespace carat::kernels {

using scalar::KeyRange;
using scalar::visible_keys;

// Where head `head` of a page lies.
struct PageHead {
  std::byte* k;
  std::byte* v;
  uint8_t* k_blocks;  // [dim / kKv4Block][kKvPageTokens], int4 only
  uint8_t* v_blocks;
  float* k_scale;  // [kKvPageTokens], codes only
  float* v_scale;
};

inline PageHead page_head(const KvLayer& cache, int64_t page, int64_t head) {
  std::byte* at = cache.pages[static_cast<size_t>(page)];
  // The part of each head is `bytes` long; K of all heads, then V of all.
  const auto take = [&](int64_t bytes, std::byte** k, std::byte** v) {
    *k = at + head * bytes;
    *v = at + (cache.n_kv_heads + head) * bytes;
    at += 2 * cache.n_kv_heads * bytes;
  };
  PageHead p{};
  std::byte *k = nullptr, *v = nullptr;
  take(kKvPageTokens * kv_element_bytes(cache.type, cache.head_dim), &p.k, &p.v);
  if (is_kv4(cache.type)) {
    take(kKvPageTokens * kv_block_bytes(cache.type, cache.head_dim), &k, &v);
    p.k_blocks = reinterpret_cast<uint8_t*>(k);
    p.v_blocks = reinterpret_cast<uint8_t*>(v);
  }
  if (is_kv_codes(cache.type)) {
    take(kKvPageTokens * 4, &k, &v);
    p.k_scale = reinterpret_cast<float*>(k);
    p.v_scale = reinterpret_cast<float*>(v);
  }
  return p;
}

inline KeyRange intersect(KeyRange a, int64_t segment) {
  return {std::max(a.begin, segment * kKvPageTokens),
          std::min(a.end, (segment + 1) * kKvPageTokens)};
}

}  // namespace carat::kernels
