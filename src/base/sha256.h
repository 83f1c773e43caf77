// SHA-256 (FIPS 180-4) of a stream, for checksums of files. Computed by OpenSSL, which uses the
// processor's own instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace carat {

// Copying copies the state. Not for several threads at once.
class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  ~Sha256();
  Sha256(const Sha256& other);
  Sha256& operator=(const Sha256& other);
  void update(std::span<const std::byte> bytes);
  // Of all bytes so far; more may follow.
  Digest digest() const;
  int64_t bytes() const { return bytes_; }

 private:
  struct State;
  std::unique_ptr<State> state_;
  int64_t bytes_ = 0;
};

// 64 lower-case hexadecimal digits.
std::string to_hex(const Sha256::Digest& digest);
std::string sha256_hex(std::span<const std::byte> bytes);
// Whether a text is a digest as to_hex writes it, in digits of either case.
bool is_sha256_hex(const std::string& text);

}  // namespace carat
