#include "io/names.h"

#include <cstddef>
#include <cstdint>

namespace carat::io {
namespace {

bool is_continuation(unsigned char c) { return (c & 0xc0) == 0x80; }

// Length of the sequence that begins at text[i], 0 if it is malformed.
size_t sequence_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char a = byte(i);
  if (a < 0x80) return 1;
  const size_t length = a >= 0xc2 && a <= 0xdf ? 2 : a >= 0xe0 && a <= 0xef ? 3 : 4;
  if (a < 0xc2 || a > 0xf4 || length > text.size() - i) return 0;
  for (size_t k = 1; k < length; ++k) {
    if (!is_continuation(byte(i + k))) return 0;
  }
  const unsigned char b = byte(i + 1);
  if (a == 0xe0 && b < 0xa0) return 0;  // overlong
  if (a == 0xed && b > 0x9f) return 0;  // surrogate
  if (a == 0xf0 && b < 0x90) return 0;  // overlong
  if (a == 0xf4 && b > 0x8f) return 0;  // above U+10FFFF
  return length;
}

}  // namespace

bool valid_utf8(std::string_view text) noexcept {
  for (size_t i = 0; i < text.size();) {
    const size_t n = sequence_length(text, i);
    if (n == 0) return false;
    i += n;
  }
  return true;
}

const char* name_fault(std::string_view name) noexcept {
  if (name.empty()) return "the name is empty";
  for (const char c : name) {
    if (c == '\0') return "the name contains a NUL byte";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return "the name contains a control character";
    }
  }
  if (!valid_utf8(name)) return "the name is not valid UTF-8";
  return nullptr;
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kMost = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string s = "\"";
  for (const char c : text.substr(0, kMost)) {
    const auto u = static_cast<uint8_t>(c);
    if (u >= 0x20 && u < 0x7f) {
      s += c;
    } else {
      s += "\\x";
      s += kHex[u >> 4];
      s += kHex[u & 15];
    }
  }
  return s + (text.size() > kMost ? "...\"" : "\"");
}

}  // namespace carat::io
