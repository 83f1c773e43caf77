// A fast hash of short byte strings, for tables inside text. Not stable across versions.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace carat::text {

[[nodiscard]] inline uint64_t mix64(uint64_t x, uint64_t factor) {
  const auto product = static_cast<unsigned __int128>(x) * factor;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

[[nodiscard]] inline uint64_t piece_hash(std::string_view s) {
  constexpr uint64_t kA = 0x9e3779b97f4a7c15u, kB = 0xd6e8feb86659fd93u;
  uint64_t h = kA ^ s.size();
  const char* p = s.data();
  size_t n = s.size();
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    h = mix64(h ^ word, kB);
  }
  uint64_t tail = 0;
  if (n > 0) std::memcpy(&tail, p, n);
  return mix64(h ^ tail, kA);
}

}  // namespace carat::text
