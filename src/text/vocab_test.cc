#include "text/vocab.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace carat::text {
namespace {

constexpr const char* kNormalizer =
    R"("normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"})";

std::string json(const std::string& model, const std::string& rest = "") {
  return "{" + std::string(kNormalizer) + rest + ",\"model\":" + model + "}";
}

std::string failure(const std::string& text) {
  try {
    (void)vocab_from_tokenizer_json(text);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(VocabJson, ReadsBothFormsOfMergesInAnyOrder) {
  for (const char* merges : {R"([["a","b"],["ab","\n"]])", R"(["a b","ab \n"])"}) {
    for (bool merges_first : {false, true}) {
      const std::string vocab = R"("vocab":{"<unk>":0,"b":2,"a":1,"\n":3,"ab":4,"ab\n":5})";
      const std::string m = std::string("\"merges\":") + merges;
      const std::string model =
          merges_first ? "{" + m + "," + vocab + "}" : "{" + vocab + "," + m + "}";
      const Vocab v = vocab_from_tokenizer_json(json(model));
      ASSERT_EQ(v.size(), 6);
      EXPECT_EQ(v.piece(1), "a");
      EXPECT_EQ(v.piece(5), "ab\n");
      ASSERT_EQ(v.merges.size(), 2u);
      EXPECT_EQ(v.merges[0].left, 1);
      EXPECT_EQ(v.merges[0].right, 2);
      EXPECT_EQ(v.merges[0].result, 4);
      EXPECT_EQ(v.merges[1].result, 5);
      EXPECT_EQ(v.special.unk, 0);
      EXPECT_TRUE(v.byte_tokens.empty());
    }
  }
}

TEST(VocabJson, AddedTokensExtendOrRepeatTheVocabulary) {
  const Vocab v = vocab_from_tokenizer_json(json(
      R"({"vocab":{"<unk>":0,"a":1,"<eos>":3},"merges":[]})",
      R"(,"added_tokens":[{"id":0,"content":"<unk>","special":true},{"id":2,"content":"<turn|>"}],"pre_tokenizer":null)"));
  ASSERT_EQ(v.size(), 4);
  EXPECT_EQ(v.special.turn_end, 2);
  EXPECT_EQ(v.types[2], TokenType::kControl);
  EXPECT_EQ(v.stop_ids, (std::vector<int32_t>{2, 3}));
  EXPECT_TRUE(v.is_stop(3));
  EXPECT_FALSE(v.is_stop(1));
}

TEST(VocabJson, RefusesWhatIsNotOfTheKind) {
  const std::string good = R"({"vocab":{"<unk>":0,"a":1},"merges":[]})";
  EXPECT_EQ(failure(json(good)), "");
  struct Case {
    std::string text, expected;
  };
  const Case cases[] = {
      {"{}", "no \"model\""},
      {"{\"model\":" + good + "}", "normalizer"},
      {R"({"normalizer":{"type":"NFC"},"model":)" + good + "}", "normalizer"},
      {R"({"normalizer":{"type":5},"model":)" + good + "}", "type"},
      {json(good, R"(,"pre_tokenizer":{"type":"ByteLevel"})"), "pre_tokenizer"},
      {json(R"({"type":"Unigram","vocab":[["a",0]]})"), "BPE"},
      {json(R"({"ignore_merges":true,"vocab":{"a":0},"merges":[]})"), "ignore_merges"},
      {json(R"({"end_of_word_suffix":"</w>","vocab":{"a":0},"merges":[]})"), "suffixes"},
      {json(R"({"vocab":{"a":0}})"), "merges"},
      {json(R"({"vocab":{"a":0,"b":2},"merges":[]})"), "hole"},
      {json(R"({"vocab":{"a":0,"b":0},"merges":[]})"), "two texts"},
      {json(R"({"vocab":{"a":0,"a":1},"merges":[]})"), "same piece"},
      {json(R"({"vocab":{"a":4000000000},"merges":[]})"), "range"},
      {json(R"({"vocab":{"a":4000000},"merges":[]})"), "hole"},
      {json(R"({"vocab":{"a":-1},"merges":[]})"), "range"},
      {json(R"({"vocab":{"a":0},"merges":["aa"]})"), "no space"},
      {json(R"({"vocab":{"a":0},"merges":["a b"]})"), "not in the vocabulary"},
      {json(R"({"vocab":{"a":0},"merges":["a a"]})"), "result of a merge"},
      {json(R"({"vocab":{"a":0},"merges":[["a"]]})"), "two pieces"},
      {json(R"({"vocab":{"a":0},"merges":[["a","a","a"]]})"), "merge"},
      {json(R"({"vocab":{},"merges":[]})"), "empty"},
      {json(good) + "x", "after the end"},
      {json(good, R"(,"added_tokens":[{"content":"x"}])"), "added token"},
  };
  for (const Case& c : cases) {
    EXPECT_NE(failure(c.text).find(c.expected), std::string::npos)
        << c.text << "\nexpected: " << c.expected << "\ngot: " << failure(c.text);
  }
}

TEST(VocabJson, EveryCutFails) {
  const std::string text =
      json(R"({"type":"BPE","vocab":{"<unk>":0,"a":1,"aa":2},"merges":[["a","a"]]})");
  for (size_t n = 0; n < text.size(); ++n) EXPECT_NE(failure(text.substr(0, n)), "") << n;
}

TEST(VocabBuilder, KnowsMarkersBytesAndTypes) {
  VocabBuilder builder;
  builder.add_piece("<pad>", TokenType::kControl);
  builder.add_piece("<eos>");  // GGUF files have it as normal
  builder.add_piece("<|channel>", TokenType::kUserDefined);
  builder.add_piece("<|tool_response>");
  builder.add_piece("<turn|>");
  const Vocab v = builder.finish();
  EXPECT_EQ(v.special.pad, 0);
  EXPECT_EQ(v.special.bos, kNoToken);
  EXPECT_FALSE(v.special.has_turns());
  for (int32_t id = 0; id < v.size(); ++id) EXPECT_EQ(v.types[id], TokenType::kControl);
  EXPECT_EQ(gguf_token_type(v, 2), TokenType::kUserDefined);
  EXPECT_EQ(gguf_token_type(v, 1), TokenType::kControl);
  EXPECT_EQ(v.stop_ids, (std::vector<int32_t>{1, 3, 4}));
}

TEST(VocabBuilder, RefusesBadTypesAndScores) {
  VocabBuilder builder;
  EXPECT_THROW(builder.add_piece("a", static_cast<TokenType>(9)), Error);
  builder.add_piece("a");
  builder.add_piece("b");
  builder.add_score(0);
  EXPECT_THROW((void)builder.finish(), Error);
}

}  // namespace
}  // namespace carat::text
