#include <string>
#include <vector>

#include "base/error.h"
#include "convert/synth.h"

namespace carat::convert {
namespace {

constexpr const char* kSpace = "\xe2\x96\x81";
constexpr int kLongestNewlineRun = 8;
constexpr size_t kPublishedMerges = 514906;

// Strings of letters in order of length, the first letter possibly a space; at most n.
std::vector<std::string> letter_strings(size_t n) {
  std::vector<std::string> all;
  std::vector<std::string> level = {kSpace};
  for (char c = 'a'; c <= 'z'; ++c) level.emplace_back(1, c);
  while (all.size() < n) {
    std::vector<std::string> longer;
    for (const std::string& head : level) {
      for (char c = 'a'; c <= 'z' && all.size() + longer.size() < n; ++c) {
        longer.push_back(head + c);
      }
    }
    all.insert(all.end(), longer.begin(), longer.end());
    level = std::move(longer);
  }
  return all;
}

// Bytes of the first character: a space is three.
size_t first_length(const std::string& text) { return text.starts_with(kSpace) ? 3 : 1; }

std::string byte_piece(int byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + '>';
}

}  // namespace

text::Vocab synthetic_vocab(int32_t size) {
  text::VocabBuilder builder;
  int32_t count = 0;
  const auto add = [&](const std::string& piece, text::TokenType type) {
    builder.add_piece(piece, type);
    ++count;
  };
  for (const text::SpecialToken& token : text::special_tokens()) {
    add(token.text, text::TokenType::kControl);
  }
  for (int byte = 0; byte < 256; ++byte) add(byte_piece(byte), text::TokenType::kByte);
  for (int n = 1; n <= kLongestNewlineRun; ++n) {
    add(std::string(static_cast<size_t>(n), '\n'), text::TokenType::kNormal);
  }
  add(kSpace, text::TokenType::kNormal);
  for (char c = '!'; c <= '~'; ++c) add(std::string(1, c), text::TokenType::kNormal);
  CHECK(count <= size);
  const std::vector<std::string> strings = letter_strings(static_cast<size_t>(size - count));
  for (const std::string& s : strings) builder.add_piece(s);

  size_t merges = 0;
  for (int n = 2; n <= kLongestNewlineRun; ++n) {
    for (int left = 1; left < n; ++left, ++merges) {
      builder.add_merge(std::string(static_cast<size_t>(left), '\n'),
                        std::string(static_cast<size_t>(n - left), '\n'));
    }
  }
  for (const std::string& s : strings) {
    builder.add_merge(s.substr(0, s.size() - 1), s.substr(s.size() - 1));
    ++merges;
  }
  // The other way to cut a longer string, up to as many merges as the published vocabulary has.
  for (const std::string& s : strings) {
    const size_t first = first_length(s);
    if (s.size() - first < 2) continue;
    if (merges++ == kPublishedMerges) break;
    builder.add_merge(s.substr(0, first), s.substr(first));
  }
  return builder.finish();
}

}  // namespace carat::convert
