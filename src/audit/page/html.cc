#include "audit/page/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace carat::audit::page {
namespace {

constexpr std::string_view kMissing = "\u2013";
constexpr std::string_view kInfinite = "\u221e";

uint32_t decode(std::string_view s, int length) {
  if (length == 1) return static_cast<uint8_t>(s[0]);
  uint32_t c = static_cast<uint8_t>(s[0]) & (0x7fu >> length);
  for (int i = 1; i < length; ++i) {
    c = c << 6 | (static_cast<uint8_t>(s[static_cast<size_t>(i)]) & 63u);
  }
  return c;
}

// Invisible ones: marks and overrides of direction, joiners, the byte order mark, language tags.
bool is_hidden(uint32_t c) {
  return c == 0xad || c == 0x61c || c == 0x180e || (c >= 0x200b && c <= 0x200f) ||
         (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
         (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

void append_escaped(uint32_t c, std::string* out) {
  switch (c) {
    case '&':
      *out += "&amp;";
      return;
    case '<':
      *out += "&lt;";
      return;
    case '>':
      *out += "&gt;";
      return;
    case '"':
      *out += "&quot;";
      return;
    case '\'':
      *out += "&#39;";
      return;
    case '\n':
      *out += "\u21b5";
      return;
    case '\t':
      *out += "\u21e5";
      return;
    case 0x7f:
      *out += "\u2421";
      return;
    default:
      break;
  }
  if (c < 0x20) {
    append_utf8(0x2400 + c, out);  // the pictures of control characters
  } else if ((c >= 0x80 && c < 0xa0) || is_hidden(c) || (c & 0xfffe) == 0xfffe) {
    *out += fmt::format("\u27e8U+{:04X}\u27e9", c);
  } else {
    append_utf8(c, out);
  }
}

// Calls f(begin, length) for every character, malformed bytes counting as one each.
template <class F>
void for_each_character(std::string_view text, F f) {
  for (size_t at = 0; at < text.size();) {
    const int length = std::max(1, utf8_front(text.substr(at)).length);
    f(at, static_cast<size_t>(length));
    at += static_cast<size_t>(length);
  }
}

std::string_view part(std::string_view text, size_t from, size_t to) {
  size_t begin = text.size(), end = text.size(), i = 0;
  for_each_character(text, [&](size_t at, size_t) {
    if (i == from) begin = at;
    if (i == to) end = at;
    ++i;
  });
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

// Digits after the point with which a value shows three digits that matter.
int nats_digits(double v) {
  if (!(v > 0)) return 4;
  return std::clamp(2 - static_cast<int>(std::floor(std::log10(v))), 0, 6);
}

bool is_plain(double v) { return std::isfinite(v); }

std::string special(double v) {
  if (std::isnan(v)) return std::string(kMissing);
  return (v < 0 ? "\u2212" : "") + std::string(kInfinite);
}

std::string minus(std::string text) {
  if (!text.empty() && text[0] == '-') text.replace(0, 1, "\u2212");
  return text;
}

constexpr const char* kTo = " \u2013 ";

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const int length = utf8_front(text).length;
    if (length == 0) {
      out += "\ufffd";
      text.remove_prefix(1);
      continue;
    }
    append_escaped(decode(text, length), &out);
    text.remove_prefix(static_cast<size_t>(length));
  }
  return out;
}

size_t count_characters(std::string_view text) {
  size_t n = 0;
  for_each_character(text, [&](size_t, size_t) { ++n; });
  return n;
}

std::string first_characters(std::string_view text, size_t most) {
  if (count_characters(text) <= most) return std::string(text);
  return std::string(part(text, 0, most)) + "\u2026";
}

std::string last_characters(std::string_view text, size_t most) {
  const size_t n = count_characters(text);
  if (n <= most) return std::string(text);
  return "\u2026" + std::string(part(text, n - most, n));
}

std::string shortened(std::string_view text, size_t most) {
  const size_t n = count_characters(text);
  if (n <= most || most < 3) return std::string(text);
  const size_t tail = (most - 1) / 2;
  return std::string(part(text, 0, most - 1 - tail)) + "\u2026" +
         std::string(part(text, n - tail, n));
}

std::string nats_text(double v) {
  if (!is_plain(v)) return special(v);
  if (v == 0) return "0";
  const double size = std::abs(v);
  if (size >= 1e-4 && size < 1e6) return minus(fmt::format("{:.{}f}", v, nats_digits(size)));
  const std::string text = fmt::format("{:.2e}", v);
  const size_t e = text.find('e');
  return minus(text.substr(0, e)) + "\u00d7" + power_text(std::atoi(text.c_str() + e + 1));
}

std::string percent_text(double share, int digits) {
  if (!is_plain(share)) return special(share);
  return minus(fmt::format("{:.{}f}\u202f%", 100 * share, share == 1 || share == 0 ? 0 : digits));
}

std::string fixed_text(double value, int digits) {
  if (!is_plain(value)) return special(value);
  if (std::abs(value) >= 1e9) return nats_text(value);
  return minus(fmt::format("{:.{}f}", value, digits));
}

std::string bytes_text(double bytes) {
  if (!is_plain(bytes)) return special(bytes);
  const char* const units[] = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (std::abs(bytes) >= 999.5 && unit + 1 < std::size(units)) {
    bytes /= 1000;
    ++unit;
  }
  const int digits = unit == 0 || bytes >= 99.95 ? 0 : bytes >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}\u00a0{}", bytes, digits, units[unit]);
}

std::string count_text(int64_t count) {
  std::string text = std::to_string(count);
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > (count < 0 ? 1 : 0); at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

std::string power_text(int exponent) {
  static constexpr const char* kDigits[] = {"\u2070", "\u00b9", "\u00b2", "\u00b3", "\u2074",
                                            "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string text = "10";
  if (exponent < 0) text += "\u207b";
  for (const char c : std::to_string(std::abs(exponent))) text += kDigits[c - '0'];
  return text;
}

std::string interval_text(const Figure& nats) {
  if (!nats.interval) return {};
  const double low = nats.interval->low, high = nats.interval->high;
  const double size = std::abs(nats.value);
  if (!(size >= 1e-4 && size < 1e6)) return nats_text(low) + kTo + nats_text(high);
  const int digits = nats_digits(size);
  return fixed_text(low, digits) + kTo + fixed_text(high, digits);
}

std::string interval_percent_text(const Figure& share) {
  if (!share.interval) return {};
  return fixed_text(100 * share.interval->low, 2) + kTo + percent_text(share.interval->high);
}

std::string interval_fixed_text(const Figure& figure, int digits) {
  if (!figure.interval) return {};
  return fixed_text(figure.interval->low, digits) + kTo + fixed_text(figure.interval->high, digits);
}

std::string counted(int64_t n, const std::string& one, const std::string& many) {
  return n == 1 ? "one " + one : count_text(n) + " " + many;
}

}  // namespace carat::audit::page
