// Files that lie, one per way of lying, with a part of the message that each must give; and some
// sound ones (empty message). The tests read them, and fuzz/corpus holds them as seeds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carat::io::testing {

struct BadFile {
  std::string name;
  std::string bytes;
  std::string error;  // part of the message; empty: the file is sound
};

// Little-endian bytes, put together in code.
class Bytes {
 public:
  Bytes& u8(uint8_t v) { return put(v); }
  Bytes& u16(uint16_t v) { return put(v); }
  Bytes& u32(uint32_t v) { return put(v); }
  Bytes& u64(uint64_t v) { return put(v); }
  Bytes& f32(float v) { return put(v); }
  Bytes& raw(const std::string& s) {
    text_ += s;
    return *this;
  }
  Bytes& zeros(size_t n) { return raw(std::string(n, '\0')); }
  // As GGUF writes a string.
  Bytes& str(const std::string& s) { return u64(s.size()).raw(s); }
  // Zeros up to a multiple of n.
  Bytes& align(size_t n) { return zeros((n - text_.size() % n) % n); }
  size_t size() const { return text_.size(); }
  operator const std::string&() const { return text_; }  // NOLINT: implicit by intent

 private:
  template <class T>
  Bytes& put(T v) {
    text_.append(reinterpret_cast<const char*>(&v), sizeof(v));
    return *this;
  }
  std::string text_;
};

}  // namespace carat::io::testing
