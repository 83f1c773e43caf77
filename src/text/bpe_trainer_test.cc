#include "text/bpe_trainer.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/rng.h"
#include "text/test_text.h"
#include "text/tokenizer.h"

namespace carat::text {
namespace {

constexpr std::string_view kMark = "\xe2\x96\x81";

const Vocab& trained() {
  static const Vocab vocab = train_bpe(kTestText, {.vocab_size = 560, .min_character_count = 3});
  return vocab;
}

std::vector<std::string> pieces_of(const Tokenizer& t, std::string_view text) {
  std::vector<std::string> pieces;
  for (int32_t id : t.encode(text)) pieces.emplace_back(t.vocab().piece(id));
  return pieces;
}

TEST(BpeTrainer, LaysOutTheIds) {
  const Vocab& v = trained();
  EXPECT_EQ(v.size(), 560);
  EXPECT_EQ(v.special.pad, 0);
  EXPECT_EQ(v.special.eos, 1);
  EXPECT_EQ(v.special.bos, 2);
  EXPECT_EQ(v.special.unk, 3);
  EXPECT_EQ(v.special.mask, 4);
  const auto n_special = static_cast<int32_t>(special_tokens().size());
  for (int32_t id = 0; id < n_special; ++id) EXPECT_EQ(v.piece(id), special_tokens()[id].text);
  ASSERT_EQ(v.byte_tokens.size(), 256u);
  EXPECT_EQ(v.byte_tokens[0], n_special);
  EXPECT_EQ(v.piece(n_special + 256), "\n");
  EXPECT_EQ(v.piece(n_special + 256 + 7), "\n\n\n\n\n\n\n\n");
  EXPECT_EQ(v.stop_ids,
            (std::vector<int32_t>{1, v.special.tool_response_begin, v.special.turn_end}));
}

TEST(BpeTrainer, PiecesStayInsideWords) {
  const Vocab& v = trained();
  for (int32_t id = v.byte_tokens[255] + 1; id < v.size(); ++id) {
    const std::string piece(v.piece(id));
    const bool newline = piece.find('\n') != std::string::npos;
    EXPECT_TRUE(!newline || piece.find_first_not_of('\n') == std::string::npos) << piece;
    const size_t mark = piece.rfind(kMark);
    const bool inner = mark != std::string::npos && mark > 0;
    EXPECT_TRUE(!inner || piece.size() == mark + kMark.size()) << piece;
    const size_t digit = piece.find_first_of("0123456789");
    EXPECT_TRUE(digit == std::string::npos || piece.size() == digit + 1) << piece;
  }
}

TEST(BpeTrainer, LearnsTheFrequentWords) {
  const Tokenizer t(trained());
  EXPECT_EQ(pieces_of(t, " the"), std::vector<std::string>{"▁the"});
  const std::string text(kTestText);
  const auto ids = t.encode(text);
  EXPECT_EQ(t.decode(ids), text);
  EXPECT_LT(ids.size() * 2, text.size());
  EXPECT_EQ(pieces_of(t, "{\"~\":7}"),
            (std::vector<std::string>{"{", "\"", "~", "\"", ":", "7", "}"}));
}

TEST(BpeTrainer, TheFirstMergeIsTheMostFrequentPair) {
  const Vocab v =
      train_bpe("ab ab ab ab cb cb", {.vocab_size = 24 + 256 + 2 + 95 + 1, .max_newline_run = 2});
  ASSERT_EQ(v.merges.size(), 2u);
  EXPECT_EQ(v.piece(v.merges[0].result), "\n\n");
  EXPECT_EQ(v.piece(v.merges[1].result), "ab");
}

// Any order of merges leads to the same ids: the lookup of the whole run is one order, BPE another.
TEST(BpeTrainer, NewlineRunsAreClosedUnderMerging) {
  const Vocab& v = trained();
  int32_t runs[9] = {};
  for (int n = 1; n <= 8; ++n) runs[n] = v.byte_tokens[255] + n;
  int found = 0;
  for (const Vocab::Merge& m : v.merges) {
    const size_t a = v.piece(m.left).size(), b = v.piece(m.right).size();
    const bool newline = v.piece(m.left)[0] == '\n' || v.piece(m.right)[0] == '\n';
    if (!newline) continue;
    ++found;
    ASSERT_LE(a + b, 8u);
    EXPECT_EQ(m.left, runs[a]);
    EXPECT_EQ(m.right, runs[b]);
    EXPECT_EQ(m.result, runs[a + b]);
  }
  EXPECT_EQ(found, 28);
}

TEST(BpeTrainer, IsDeterministicAndSurvivesItsFile) {
  const Vocab again = train_bpe(kTestText, {.vocab_size = 560, .min_character_count = 3});
  const std::string json = to_tokenizer_json(trained());
  EXPECT_EQ(json, to_tokenizer_json(again));
  const Vocab read = vocab_from_tokenizer_json(json);
  EXPECT_EQ(read.arena, trained().arena);
  EXPECT_EQ(read.offsets, trained().offsets);
  EXPECT_EQ(read.types, trained().types);
  EXPECT_EQ(read.byte_tokens, trained().byte_tokens);
  ASSERT_EQ(read.merges.size(), trained().merges.size());
  for (size_t i = 0; i < read.merges.size(); ++i)
    EXPECT_EQ(read.merges[i].result, trained().merges[i].result);
  EXPECT_EQ(to_tokenizer_json(read), json);
}

TEST(BpeTrainer, WritesGemmasStructure) {
  const Json j = parse_json(to_tokenizer_json(trained()));
  EXPECT_EQ(to_json_text(j["normalizer"]),
            R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})");
  EXPECT_EQ(
      to_json_text(j["pre_tokenizer"]),
      R"({"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false})");
  EXPECT_EQ(
      to_json_text(j["decoder"]),
      R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]})");
  EXPECT_EQ(j["model"]["byte_fallback"], true);
  EXPECT_EQ(j["added_tokens"].size(), special_tokens().size());
  EXPECT_EQ(j["added_tokens"][2]["content"], "<bos>");
  EXPECT_EQ(j["added_tokens"][2]["special"], true);
  const Json config = parse_json(to_tokenizer_config_json(trained()));
  EXPECT_EQ(config["sot_token"], "<|turn>");
  EXPECT_EQ(config["eot_token"], "<turn|>");
  EXPECT_EQ(config["escape_token"], "<|\"|>");
}

TEST(BpeTrainer, RefusesImpossibleSizes) {
  EXPECT_THROW((void)train_bpe("abc", {.vocab_size = 100}), Error);
  EXPECT_THROW((void)train_bpe("abc", {.vocab_size = 4096}), Error);
  EXPECT_THROW((void)train_bpe("abc", {.vocab_size = 4096, .max_newline_run = 0}), Error);
}

}  // namespace
}  // namespace carat::text
