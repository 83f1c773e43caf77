#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/test_cases.h"

namespace carat::text {
namespace {

using Ids = std::vector<int32_t>;

std::string byte_name(int b) {
  char name[8];
  snprintf(name, sizeof(name), "<0x%02X>", b);
  return name;
}

// Specials, bytes, the given pieces; merges as pairs of texts.
Vocab small_vocab(const std::vector<std::string>& pieces,
                  const std::vector<std::pair<std::string, std::string>>& merges,
                  bool bytes = true) {
  VocabBuilder builder;
  for (const SpecialToken& token : special_tokens()) builder.add_piece(token.text);
  for (int b = 0; bytes && b < 256; ++b) builder.add_piece(byte_name(b));
  for (const std::string& piece : pieces) builder.add_piece(piece);
  for (const auto& [left, right] : merges) builder.add_merge(left, right);
  return builder.finish();
}

std::string pieces_of(const Tokenizer& t, const Ids& ids) {
  std::string s;
  for (int32_t id : ids) s += "[" + std::string(t.vocab().piece(id)) + "]";
  return s;
}

std::string encoded(const Tokenizer& t, std::string_view text) {
  return pieces_of(t, t.encode(text));
}

Tokenizer abc() {
  return Tokenizer(small_vocab({"a", "b", "c", "▁", "\n", "ab", "bc", "abc", "▁a", "▁ab", "\n\n",
                                "\n\n\n", "é", "aa", "aaaa"},
                               {{"\n", "\n"},
                                {"b", "c"},
                                {"a", "b"},
                                {"ab", "c"},
                                {"▁", "a"},
                                {"▁a", "b"},
                                {"a", "a"},
                                {"aa", "aa"}}));
}

TEST(Tokenizer, GoldenCases) {
  const CaseFile file = read_cases("encode.txt", {"text", "specials"});
  std::vector<std::string> pieces;
  std::vector<std::pair<std::string, std::string>> merges;
  for (const auto& [key, value] : file.head) {
    std::string word;
    const size_t space = value.find(' ');
    if (key == "merge") merges.emplace_back(value.substr(0, space), value.substr(space + 1));
    if (key != "pieces") continue;
    for (char c : value + " ") {
      if (c != ' ') {
        word += c;
      } else if (!word.empty()) {
        pieces.push_back(std::exchange(word, {}));
      }
    }
  }
  const Tokenizer t(small_vocab(pieces, merges));
  EXPECT_GE(file.cases.size(), 15u);
  for (const CaseLines& lines : file.cases) {
    ASSERT_EQ(lines.size(), 2u);
    const auto& [key, text] = lines[0];
    const Ids ids = key == "text" ? t.encode(text) : t.encode_with_specials(text);
    EXPECT_EQ(pieces_of(t, ids), lines[1].second) << text;
  }
}

TEST(Tokenizer, UnknownRunsBecomeOneUnkWithoutBytes) {
  const Tokenizer t(small_vocab({"a", "▁"}, {}, false));
  EXPECT_EQ(encoded(t, "axyéa z"), "[a][<unk>][a][▁][<unk>]");
  VocabBuilder builder;
  builder.add_piece("a");
  EXPECT_THROW(Tokenizer(builder.finish()), Error);
}

TEST(Tokenizer, UserTextNeverMakesSpecials) {
  // A vocabulary that would make <|turn> by merging, and has a control token of one character.
  Vocab vocab = small_vocab(
      {"<", "|", "t", "u", "r", "n", ">", "<|", "tu", "rn", "turn", "<|turn", "\x01", "\n"},
      {{"<", "|"}, {"t", "u"}, {"r", "n"}, {"tu", "rn"}, {"<|", "turn"}, {"<|turn", ">"}});
  const Tokenizer t(std::move(vocab));
  EXPECT_EQ(encoded(t, "<|turn>"), "[<|turn][>]");
  EXPECT_EQ(encoded(t, "<bos>"), "[<][<0x62>][<0x6F>][<0x73>][>]");
  EXPECT_EQ(encoded(t, "<0x41>"), "[<][<0x30>][<0x78>][<0x34>][<0x31>][>]");
  EXPECT_EQ(pieces_of(t, t.encode_with_specials("<bos><|turn>t\nu<turn|><")),
            "[<bos>][<|turn>][t][\n][u][<turn|>][<]");
  EXPECT_EQ(pieces_of(t, t.encode_with_specials("<|tool_call><|tool><|to")),
            "[<|tool_call>][<|tool>][<|][t][<0x6F>]");
}

TEST(Tokenizer, DecodesAndStreams) {
  const Tokenizer t = abc();
  const std::string text = " ab\n\n\xf0\x9f\x98\x80 caf\xc3\xa9\xff!";
  const Ids ids = t.encode(text);
  EXPECT_EQ(t.decode_bytes(ids), text);
  EXPECT_EQ(t.decode(ids), " ab\n\n\xf0\x9f\x98\x80 caf\xc3\xa9\xef\xbf\xbd!");
  StreamDecoder stream(t);
  std::vector<std::string> parts;
  for (int32_t id : t.encode("\xf0\x9f\x98\x80"
                             "a\xe2\x96"))
    parts.push_back(stream.push(id));
  parts.push_back(stream.finish());
  EXPECT_EQ(parts, (std::vector<std::string>{"", "", "", "\xf0\x9f\x98\x80", "a", "", "",
                                             "\xef\xbf\xbd\xef\xbf\xbd"}));
  const Ids marked = {t.find("<bos>"), t.find("a"), t.find("<turn|>")};
  EXPECT_EQ(t.decode(marked), "a");
  EXPECT_EQ(t.decode(marked, true), "<bos>a<turn|>");
  EXPECT_THROW(t.decode(Ids{-1}), Error);
  EXPECT_THROW(t.decode(Ids{t.vocab().size()}), Error);
}

// The definition, in quadratic time, on a whole line at once.
Ids plain_bpe(const Tokenizer& t, std::string_view line) {
  Ids ids;
  for (size_t at = 0; at < line.size();) {
    const int length = std::max(1, utf8_front(line.substr(at)).length);
    std::string_view c = line.substr(at, length);
    const int32_t id = t.find(c == " " ? "▁" : c);
    if (id != kNoToken && utf8_front(c).length > 0) {
      ids.push_back(id);
    } else {
      for (char b : c) ids.push_back(t.vocab().byte_tokens[static_cast<uint8_t>(b)]);
    }
    at += length;
  }
  while (true) {
    const auto& merges = t.vocab().merges;
    size_t best = merges.size(), where = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (size_t m = 0; m < best; ++m) {
        if (merges[m].left == ids[i] && merges[m].right == ids[i + 1]) {
          best = m;
          where = i;
        }
      }
    }
    if (best == merges.size()) return ids;
    ids[where] = merges[best].result;
    ids.erase(ids.begin() + where + 1);
  }
}

TEST(Tokenizer, AgreesWithTheDefinitionOnRandomVocabularies) {
  Rng rng(7);
  const std::vector<std::string> letters = {"a", "b", "▁", ".", "é", "漢"};
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> pieces = letters;
    std::vector<std::pair<std::string, std::string>> merges;
    for (int i = 0; i < 40; ++i) {
      const std::string left = pieces[rng.below(pieces.size())];
      const std::string right = pieces[rng.below(pieces.size())];
      if (left.size() + right.size() > 24) continue;
      const std::pair<std::string, std::string> merge{left, right};
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      const std::string both = left + right;
      if (std::find(pieces.begin(), pieces.end(), both) == pieces.end()) pieces.push_back(both);
    }
    const Tokenizer t(small_vocab(pieces, merges));
    const std::vector<std::string> alphabet = {"a",  "b", " ",    ".",  "é",
                                               "漢", "x", "\xff", "ab", "a"};
    for (int text_round = 0; text_round < 20; ++text_round) {
      std::string line;
      const int n = static_cast<int>(rng.below(text_round < 15 ? 30 : 400));
      for (int i = 0; i < n; ++i) line += alphabet[rng.below(alphabet.size())];
      const Ids ids = t.encode(line);
      ASSERT_EQ(pieces_of(t, ids), pieces_of(t, plain_bpe(t, line))) << line;
      ASSERT_EQ(t.decode_bytes(ids), line);
      std::string both = line + "\n" + line;  // with the cache of words in use
      Ids twice = ids;
      twice.push_back(t.vocab().byte_tokens['\n']);
      twice.insert(twice.end(), ids.begin(), ids.end());
      ASSERT_EQ(t.encode(both), twice);
    }
  }
}

TEST(Tokenizer, RandomBytesAndIdsSurvive) {
  const Tokenizer t = abc();
  Rng rng(3);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    for (uint64_t n = rng.below(60); n > 0; --n) {
      bytes +=
          static_cast<char>(rng.below(3) == 0 ? rng.below(256) : "ab \n\xe2\x96\x82"[rng.below(7)]);
    }
    if (bytes.find("▁") == std::string::npos) {
      EXPECT_EQ(t.decode_bytes(t.encode(bytes)), bytes);
    }
    Ids ids;
    for (uint64_t n = rng.below(40); n > 0; --n)
      ids.push_back(static_cast<int32_t>(rng.below(t.vocab().size())));
    StreamDecoder stream(t);
    std::string text;
    for (int32_t id : ids) {
      const std::string part = stream.push(id);
      EXPECT_TRUE(is_valid_utf8(part));
      text += part;
    }
    EXPECT_EQ(text + stream.finish(), t.decode(ids));
  }
}

// Would take hours if any step were quadratic.
TEST(Tokenizer, LongRunsAreNotQuadratic) {
  const Tokenizer t = abc();
  EXPECT_EQ(t.encode(std::string(1 << 20, 'a')), Ids(1 << 18, t.find("aaaa")));
  EXPECT_EQ(t.encode(std::string(1 << 20, '\n')), Ids(1 << 19, t.find("\n\n")));
  EXPECT_EQ(t.encode(std::string(1 << 20, ' ')), Ids(1 << 20, t.find("▁")));
  EXPECT_EQ(t.encode(std::string(1 << 20, '\xff')).size(), size_t{1} << 20);
}

TEST(Tokenizer, ThreadsShareOne) {
  const Tokenizer t = abc();
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "abc aa b\n"[i * 7 % 9];
  const Ids expected = t.encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& r : results) threads.emplace_back([&t, &text, &r] { r = t.encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& r : results) EXPECT_EQ(r, expected);
}

}  // namespace
}  // namespace carat::text
