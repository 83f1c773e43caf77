// What the two files of CpuOps' attention share; nobody else includes it.
#pragma once

#include <algorithm>

#include "kernels/cpu/cpu_ops_impl.h"
#include "kernels/scalar/attention.h"

namespace carat::kernels {

using scalar::KeyRange;
using scalar::visible_keys;

// Where head `head` of a page lies.
struct PageHead {
  std::byte* k;
  std::byte* v;
  float* k_scale;  // [kKvPageTokens], int8 only
  float* v_scale;
};

inline PageHead page_head(const KvLayer& cache, int64_t page, int64_t head) {
  std::byte* base = cache.pages[static_cast<size_t>(page)];
  const int64_t element = kv_element_bytes(cache.type);
  const int64_t half = cache.half_elements() * element;
  const int64_t at = head * kKvPageTokens * cache.stored_dim() * element;
  PageHead p{base + at, base + half + at, nullptr, nullptr};
  if (cache.type == KvType::kI8) {
    float* scales = reinterpret_cast<float*>(base + 2 * half);
    p.k_scale = scales + head * kKvPageTokens;
    p.v_scale = scales + (cache.n_kv_heads + head) * kKvPageTokens;
  }
  return p;
}

inline KeyRange intersect(KeyRange a, int64_t segment) {
  return {std::max(a.begin, segment * kKvPageTokens),
          std::min(a.end, (segment + 1) * kKvPageTokens)};
}

}  // namespace carat::kernels
