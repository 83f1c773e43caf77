#include "audit/overlap.h"

#include <algorithm>

namespace carat::audit {
namespace {

// Calls f with the hash of every window.
template <class F>
void each_window(std::span<const std::vector<int32_t>> documents, F f) {
  constexpr auto kWidth = static_cast<size_t>(kOverlapTokens);
  for (const auto& tokens : documents) {
    for (size_t i = 0; i + kWidth <= tokens.size(); ++i) {
      uint64_t hash = 0;
      for (size_t k = 0; k < kWidth; ++k) {
        // splitmix64 over the running hash.
        uint64_t z = (hash ^ static_cast<uint32_t>(tokens[i + k])) + 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        hash = z ^ (z >> 31);
      }
      f(hash);
    }
  }
}

}  // namespace

Overlap find_overlap(std::span<const std::vector<int32_t>> test,
                     std::span<const std::vector<int32_t>> other) {
  std::vector<uint64_t> known;
  each_window(other, [&](uint64_t hash) { known.push_back(hash); });
  std::sort(known.begin(), known.end());
  Overlap overlap;
  each_window(test, [&](uint64_t hash) {
    ++overlap.windows;
    overlap.shared += std::binary_search(known.begin(), known.end(), hash) ? 1 : 0;
  });
  return overlap;
}

}  // namespace carat::audit
