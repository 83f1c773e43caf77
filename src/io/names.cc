#include "io/names.h"

#include <cstddef>
#include <cstdint>

#include "base/utf8.h"

namespace carat::io {
const char* name_fault(std::string_view name) noexcept {
  if (name.empty()) return "the name is empty";
  for (const char c : name) {
    if (c == '\0') return "the name contains a NUL byte";
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return "the name contains a control character";
    }
  }
  if (!is_valid_utf8(name)) return "the name is not valid UTF-8";
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
