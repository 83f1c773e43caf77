// Memory for gigabytes that are written once and read often.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

namespace carat {

// Anonymous memory, in pages of 2 MB where the system gives them (fewer misses of the processor's
// address tables). Zeros at first; resident only where it was touched. Begins at a multiple of 2
// MB.
class LargeMemory {
 public:
  static constexpr int64_t kPage = int64_t{2} << 20;

  // Nothing if the system refuses. REQUIRES: bytes >= 0.
  static std::optional<LargeMemory> try_allocate(int64_t bytes);

  ~LargeMemory();
  LargeMemory(LargeMemory&& other) noexcept
      : mapping_(std::exchange(other.mapping_, {})), bytes_(std::exchange(other.bytes_, {})) {}
  LargeMemory(const LargeMemory&) = delete;
  LargeMemory& operator=(const LargeMemory&) = delete;
  LargeMemory& operator=(LargeMemory&&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  LargeMemory() = default;
  std::span<std::byte> mapping_;  // with what the alignment cost
  std::span<std::byte> bytes_;
};

}  // namespace carat
