#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/error.h"

namespace carat {

// OpenSSL's calls fail only without memory or without SHA-256 itself.
struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();

  State() { CHECK(context != nullptr); }
  ~State() { EVP_MD_CTX_free(context); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}
Sha256::~Sha256() = default;

Sha256::Sha256(const Sha256& other) : state_(std::make_unique<State>()) { *this = other; }

Sha256& Sha256::operator=(const Sha256& other) {
  if (this == &other) return *this;
  CHECK(EVP_MD_CTX_copy_ex(state_->context, other.state_->context) == 1);
  bytes_ = other.bytes_;
  return *this;
}

void Sha256::update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
  bytes_ += static_cast<int64_t>(bytes.size());
}

Sha256::Digest Sha256::digest() const {
  const Sha256 copy = *this;
  Digest digest;
  CHECK(EVP_DigestFinal_ex(copy.state_->context, digest.data(), nullptr) == 1);
  return digest;
}

std::string to_hex(const Sha256::Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 sum;
  sum.update(bytes);
  return to_hex(sum.digest());
}

bool is_sha256_hex(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
}

}  // namespace carat
