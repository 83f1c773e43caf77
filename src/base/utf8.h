// UTF-8 as Unicode 15, table 3-7, defines it: no overlong forms, no surrogates, at most U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace carat {

// What stands at the front of `s` (not empty).
struct Utf8Front {
  int length;       // 1..4 bytes of a valid character, 0 if malformed or cut off
  bool incomplete;  // the bytes so far could begin a valid character
};

[[nodiscard]] constexpr Utf8Front utf8_front(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const uint8_t b0 = byte(0);
  if (b0 < 0x80) return {1, false};
  if (b0 < 0xc2 || b0 > 0xf4) return {0, false};
  const int length = b0 < 0xe0 ? 2 : b0 < 0xf0 ? 3 : 4;
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= s.size()) return {0, true};
    uint8_t lo = 0x80, hi = 0xbf;
    if (i == 1) {
      if (b0 == 0xe0) lo = 0xa0;
      if (b0 == 0xed) hi = 0x9f;
      if (b0 == 0xf0) lo = 0x90;
      if (b0 == 0xf4) hi = 0x8f;
    }
    if (byte(i) < lo || byte(i) > hi) return {0, false};
  }
  return {length, false};
}

[[nodiscard]] constexpr bool is_valid_utf8(std::string_view s) {
  while (!s.empty()) {
    const int length = utf8_front(s).length;
    if (length == 0) return false;
    s.remove_prefix(length);
  }
  return true;
}

// Appends the character. REQUIRES: c <= 0x10ffff.
inline void append_utf8(uint32_t c, std::string* out) {
  const auto put = [&](uint32_t b) { out->push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)),
        put(0x80 | (c & 63));
  }
}

}  // namespace carat
