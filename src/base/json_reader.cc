#include "base/json_reader.h"

#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"

namespace carat {
namespace {

constexpr uint64_t kOnes = 0x0101010101010101u, kHighs = 0x8080808080808080u;

// Length of the run of bytes at `p` that are plain ASCII inside a JSON string.
size_t plain_run(const char* p, size_t n) {
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t w;
    std::memcpy(&w, p + i, 8);
    const uint64_t quote = w ^ (kOnes * '"'), slash = w ^ (kOnes * '\\');
    const uint64_t hit = ((w - kOnes * 0x20) | (quote - kOnes) | (slash - kOnes) | w) & kHighs;
    if (hit != 0) break;  // may also hit on a borrow from a lower byte: the loop below decides
  }
  for (; i < n; ++i) {
    const auto c = static_cast<uint8_t>(p[i]);
    if (c < 0x20 || c == '"' || c == '\\' || c >= 0x80) break;
  }
  return i;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

JsonReader::JsonReader(std::string_view text, int max_depth) : text_(text), max_depth_(max_depth) {}

void JsonReader::fail(const char* what, std::string expected, std::string got) const {
  size_t line = 1, begin = 0;
  const std::string_view before = text_.substr(0, value_at_);
  for (size_t i = before.find('\n'); i != std::string_view::npos; i = before.find('\n', i + 1)) {
    ++line;
    begin = i + 1;
  }
  throw Error({what,
               {},
               "line " + std::to_string(line) + ", column " + std::to_string(value_at_ - begin + 1),
               std::move(expected),
               std::move(got),
               {}});
}

void JsonReader::skip_space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t') break;
    ++at_;
  }
  value_at_ = at_;
}

void JsonReader::expect(char c, const char* what) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != c) fail(what, std::string(1, c));
  ++at_;
}

JsonReader::Kind JsonReader::peek() {
  skip_space();
  if (at_ >= text_.size()) fail("not valid JSON: the text ends early");
  switch (text_[at_]) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
    case 'f':
      return Kind::kBool;
    case 'n':
      return Kind::kNull;
    default:
      if (text_[at_] != '-' && !is_digit(text_[at_]))
        fail("not valid JSON: a value should stand here");
      return Kind::kNumber;
  }
}

void JsonReader::open(char c, const char* what) {
  expect(c, what);
  if (static_cast<int>(first_.size()) >= max_depth_) {
    fail("the JSON text is nested too deeply", "at most " + std::to_string(max_depth_) + " levels");
  }
  first_.push_back(true);
}

void JsonReader::begin_object() { open('{', "an object should stand here"); }
void JsonReader::begin_array() { open('[', "an array should stand here"); }

bool JsonReader::next(char close) {
  CHECK(!first_.empty());
  skip_space();
  if (at_ < text_.size() && text_[at_] == close) {
    ++at_;
    first_.pop_back();
    return false;
  }
  if (!first_.back()) expect(',', "not valid JSON: a comma or the end should stand here");
  first_.back() = false;
  return true;
}

bool JsonReader::next_element() { return next(']'); }

bool JsonReader::next_key(std::string_view* key) {
  if (!next('}')) return false;
  *key = string();
  expect(':', "not valid JSON: a colon should stand here");
  return true;
}

std::string_view JsonReader::string() {
  expect('"', "a string should stand here");
  const size_t begin = at_;
  while (true) {
    at_ += plain_run(text_.data() + at_, text_.size() - at_);
    if (at_ >= text_.size()) fail("not valid JSON: a string has no end");
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c == '"') return text_.substr(begin, at_++ - begin);
    if (c == '\\') return string_with_escapes(begin);
    if (c < 0x20) fail("not valid JSON: a control character in a string");
    const int length = utf8_front(text_.substr(at_)).length;
    if (length == 0) fail("not valid JSON: invalid UTF-8 in a string");
    at_ += length;
  }
}

uint32_t JsonReader::hex4() {
  uint32_t value = 0;
  if (text_.size() - at_ < 4) fail("not valid JSON: a cut \\u escape");
  const char* p = text_.data() + at_;
  const auto r = std::from_chars(p, p + 4, value, 16);
  if (r.ec != std::errc() || r.ptr != p + 4)
    fail("not valid JSON: a \\u escape needs 4 hex digits");
  at_ += 4;
  return value;
}

// Goes on at the backslash at at_; the string began at `begin`.
std::string_view JsonReader::string_with_escapes(size_t begin) {
  scratch_.assign(text_, begin, at_ - begin);
  while (true) {
    const size_t run = plain_run(text_.data() + at_, text_.size() - at_);
    scratch_.append(text_, at_, run);
    at_ += run;
    if (at_ >= text_.size()) fail("not valid JSON: a string has no end");
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c == '"') {
      ++at_;
      return scratch_;
    }
    if (c < 0x20) fail("not valid JSON: a control character in a string");
    if (c != '\\') {
      const int length = utf8_front(text_.substr(at_)).length;
      if (length == 0) fail("not valid JSON: invalid UTF-8 in a string");
      scratch_.append(text_, at_, length);
      at_ += length;
      continue;
    }
    if (++at_ >= text_.size()) fail("not valid JSON: a string has no end");
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    const char name = text_[at_++];
    if (const size_t i = kNames.find(name); i != std::string_view::npos) {
      scratch_.push_back(kValues[i]);
      continue;
    }
    if (name != 'u') fail("not valid JSON: unknown escape in a string");
    uint32_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
      at_ += 2;
      const uint32_t low = hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("not valid JSON: half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xd800 && code <= 0xdfff) {
      fail("not valid JSON: half of a surrogate pair");
    }
    append_utf8(code, &scratch_);
  }
}

// A number as RFC 8259 writes it.
std::string_view JsonReader::number() {
  skip_space();
  const size_t begin = at_;
  const auto digits = [&] {
    const size_t from = at_;
    while (at_ < text_.size() && is_digit(text_[at_])) ++at_;
    if (at_ == from) fail("a number should stand here");
  };
  const auto at = [&](char c) { return at_ < text_.size() && text_[at_] == c; };
  if (at('-')) ++at_;
  if (at('0')) {
    ++at_;
  } else {
    digits();
  }
  if (at('.')) ++at_, digits();
  if (at('e') || at('E')) {
    ++at_;
    if (at('+') || at('-')) ++at_;
    digits();
  }
  return text_.substr(begin, at_ - begin);
}

int64_t JsonReader::integer(int64_t lo, int64_t hi) {
  const std::string_view digits = number();
  int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto r = std::from_chars(digits.data(), end, value);
  if (r.ec != std::errc() || r.ptr != end || value < lo || value > hi) {
    fail("number out of range",
         "an integer from " + std::to_string(lo) + " to " + std::to_string(hi),
         std::string(digits.substr(0, 40)));
  }
  return value;
}

void JsonReader::literal(std::string_view word) {
  if (text_.substr(at_, word.size()) != word) fail("not valid JSON: a value should stand here");
  at_ += word.size();
}

bool JsonReader::boolean() {
  if (peek() != Kind::kBool) fail("true or false should stand here");
  const bool value = text_[at_] == 't';
  literal(value ? "true" : "false");
  return value;
}

void JsonReader::null() {
  if (peek() != Kind::kNull) fail("null should stand here");
  literal("null");
}

void JsonReader::skip() {
  switch (peek()) {
    case Kind::kString:
      string();
      return;
    case Kind::kNumber:
      number();
      return;
    case Kind::kBool:
      boolean();
      return;
    case Kind::kNull:
      null();
      return;
    case Kind::kArray:
      begin_array();
      while (next_element()) skip();
      return;
    case Kind::kObject:
      begin_object();
      for (std::string_view key; next_key(&key);) skip();
  }
}

std::string_view JsonReader::raw() {
  skip_space();
  const size_t begin = at_;
  skip();
  return text_.substr(begin, at_ - begin);
}

void JsonReader::end() {
  CHECK(first_.empty());
  skip_space();
  if (at_ != text_.size()) fail("not valid JSON: text after the end");
}

}  // namespace carat
