// SHA-256 (FIPS 180-4) of a stream, for checksums of files.
//
// Written here instead of taken from a library because it has to be there for every target that
// carat is built for. Uses the processor's own instructions where it has them (about 1.5 GB/s; the
// portable code a fifth of that).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace carat {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  void update(std::span<const std::byte> bytes);
  // Of all bytes so far; more may follow.
  Digest digest() const;
  int64_t bytes() const { return bytes_; }

 private:
  std::array<uint32_t, 8> state_;
  std::array<std::byte, 64> rest_;  // the first bytes_ % 64 are waiting for a whole block
  int64_t bytes_ = 0;
};

// 64 lower-case hexadecimal digits.
std::string to_hex(const Sha256::Digest& digest);
std::string sha256_hex(std::span<const std::byte> bytes);
// Whether a text is a digest as to_hex writes it, in digits of either case.
bool is_sha256_hex(const std::string& text);

namespace sha256 {
// Mixes n blocks of 64 bytes into the state. All implementations give the same result.
using Compress = void (*)(uint32_t state[8], const std::byte* blocks, int64_t n);
void compress_portable(uint32_t state[8], const std::byte* blocks, int64_t n);
// The one for this processor.
Compress best_compress();
extern const uint32_t kRound[64];
}  // namespace sha256

}  // namespace carat
