#include "audit/corpus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "audit/overlap.h"
#include "base/error.h"
#include "text/bpe_trainer.h"
#include "text/chat.h"
#include "text/test_text.h"

namespace carat::audit {
namespace {

const text::Tokenizer& tokenizer() {
  static const text::Tokenizer t(
      text::train_bpe(text::kTestText, {.vocab_size = 560, .min_character_count = 3}));
  return t;
}

class CorpusTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("carat_corpus_" + std::to_string(reinterpret_cast<uintptr_t>(this)));
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string file(const std::string& name, std::string_view text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  Corpus read(const std::vector<std::string>& arguments, const CorpusOptions& options) const {
    std::vector<TextFile> files;
    for (const auto& a : arguments) files.push_back(parse_text_file(a));
    return read_corpus(files, tokenizer(), options);
  }
  std::filesystem::path folder_;
};

CorpusOptions small(bool chat = false) {
  CorpusOptions options;
  options.context = 33;
  options.min_context = 5;
  options.chat = chat;
  return options;
}

// The tokens that are predicted where something is compared.
std::vector<int32_t> predicted(const Chunk& chunk) {
  std::vector<int32_t> tokens;
  for (const int32_t i : chunk.compared) tokens.push_back(chunk.tokens[static_cast<size_t>(i) + 1]);
  return tokens;
}

TEST(CutDocument, CoversTheTextOnce) {
  std::vector<int32_t> text(70);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>(i) + 10;
  const int32_t bos = 2;
  const auto chunks = cut_document(text, std::span(&bos, 1), small());
  ASSERT_EQ(chunks.size(), 3u);
  std::vector<int32_t> joined;
  for (const Chunk& chunk : chunks) {
    EXPECT_EQ(chunk.tokens[0], 2);
    joined.insert(joined.end(), chunk.tokens.begin() + 1, chunk.tokens.end());
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(chunks[0].compared.size(), 28u);
  EXPECT_EQ(chunks[0].compared.front(), 4);  // five tokens before the first predicted one
  EXPECT_EQ(chunks[0].compared.back(), 31);
  EXPECT_EQ(predicted(chunks[0]).back(), text[31]);
  // A rest shorter than the context that a position needs predicts nothing.
  const auto count = [&](size_t n) {
    return cut_document(std::span(text).first(n), std::span(&bos, 1), small()).size();
  };
  EXPECT_EQ(count(68), 2u);
  EXPECT_EQ(count(4), 0u);
  EXPECT_EQ(count(5), 1u);
}

TEST(CutDocument, RefusesAContextThatTheTemplateFills) {
  const std::vector<int32_t> text(100, 9), prefix(29, 3);
  EXPECT_THROW((void)cut_document(text, prefix, small()), Error);
}

TEST(ParseTextFile, TellsDomainsFromPaths) {
  EXPECT_EQ(parse_text_file("chat=a/b.txt").domain, "chat");
  EXPECT_EQ(parse_text_file("chat=a/b.txt").path, "a/b.txt");
  EXPECT_EQ(parse_text_file("a/b.txt").domain, "");
  EXPECT_EQ(parse_text_file("a/b=c.txt").path, "a/b=c.txt");
}

TEST_F(CorpusTest, TheSamePiecesInATemplateCompareTheSameTokens) {
  const std::string path = file("t.txt", text::kTestText);
  CorpusOptions wide = small(true);
  // A context wider by what the template takes holds the same pieces.
  const text::Message request = text::text_message(text::Role::kUser, "Write a page of text.");
  const auto prefix = text::render_chat(tokenizer(), std::span(&request, 1), {});
  wide.context = small().context - 1 + static_cast<int64_t>(prefix.size());
  const Corpus chat = read({path}, wide);
  const Corpus raw = read({path}, small());
  ASSERT_EQ(chat.chunks.size(), raw.chunks.size());
  for (size_t c = 0; c < raw.chunks.size(); ++c) {
    EXPECT_TRUE(std::equal(prefix.begin(), prefix.end(), chat.chunks[c].tokens.begin()));
    EXPECT_EQ(predicted(chat.chunks[c]), predicted(raw.chunks[c]));
  }
  EXPECT_EQ(raw.chunks[0].tokens[0], tokenizer().vocab().special.bos);
  EXPECT_EQ(raw.files[0].documents, 1);
  EXPECT_EQ(raw.domains, std::vector<std::string>{"t"});
}

TEST_F(CorpusTest, ConversationsCompareWhatTheModelSays) {
  const std::string path = file(
      "c.jsonl",
      R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who was there?"}, {"role": "assistant", "content": "a king"}, {"role": "user", "content": "And?"}, {"role": "model", "content": [{"type": "text", "text": "a queen"}]}]})"
      "\n\n");
  CorpusOptions options = small();
  options.context = 400;
  const Corpus corpus = read({"chat=" + path}, options);
  ASSERT_EQ(corpus.chunks.size(), 1u);
  const Chunk& chunk = corpus.chunks[0];
  const std::string said = tokenizer().decode(predicted(chunk), true);
  EXPECT_EQ(said, "a king<turn|>a queen<turn|>");
  const auto prompt = std::span(chunk.tokens).first(static_cast<size_t>(chunk.prompt));
  EXPECT_TRUE(tokenizer().decode(prompt, true).ends_with("<|turn>model\n"));
  // Cut off after the first answer's first token.
  options.context = chunk.compared[0] + 2;
  const Corpus cut = read({"chat=" + path}, options);
  EXPECT_EQ(cut.chunks[0].compared.size(), 1u);
  EXPECT_EQ(cut.files[0].cut_tokens, static_cast<int64_t>(chunk.tokens.size()) - options.context);
}

TEST_F(CorpusTest, TextsTakeTurnsUpToTheLimit) {
  const std::string a = file("a.txt", text::kTestText);
  const std::string b = file("b.jsonl", R"({"text": "It was the best of times, it was the worst)"
                                        R"( of times, it was the age of wisdom"})");
  CorpusOptions options = small();
  options.max_positions = 28;  // exactly one chunk: 32 - 5 + 1
  EXPECT_EQ(read({a}, options).chunks.size(), 1u);
  options.max_positions = 29;
  EXPECT_EQ(read({a}, options).chunks.size(), 2u);
  const Corpus both = read({"x=" + a, "y=" + b}, options);
  ASSERT_EQ(both.chunks.size(), 2u);
  EXPECT_EQ(both.chunks[0].domain, 0);
  EXPECT_EQ(both.chunks[1].domain, 1);
  EXPECT_EQ(both.domains, (std::vector<std::string>{"x", "y"}));
}

TEST_F(CorpusTest, RefusesByFileAndLine) {
  const auto says = [&](const std::string& text, const std::string& part) {
    try {
      (void)read({file("bad.jsonl", text)}, small());
      ADD_FAILURE() << text;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("bad.jsonl"), std::string::npos) << e.what();
    }
  };
  says("{\"text\": \"a\"}\n{\"text\": 3}\n", "line 2");
  says("{\"text\": \"a\"}\n\n{\"messages\": [\n", "line 3");
  says(R"({"messages": [{"role": "king", "content": "a"}]})", "king");
  says(R"({"messages": []})", "line 1");
  says(R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})", "image");
  says("{\"text\": \"a\"}", "too short");
}

TEST(Overlap, CountsSharedWindows) {
  std::vector<int32_t> text(100), other(50);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>(i);
  for (size_t i = 0; i < other.size(); ++i) other[i] = 1000 + static_cast<int32_t>(i);
  using Documents = std::vector<std::vector<int32_t>>;
  const Documents test = {text};
  EXPECT_EQ(find_overlap(test, Documents{other}).shared, 0);
  EXPECT_EQ(find_overlap(test, Documents{other}).windows, 100 - 12);
  EXPECT_EQ(find_overlap(test, test).share(), 1);
  // A copied stretch of 20 tokens holds 8 windows; one of 12 none.
  std::copy_n(text.begin() + 30, 20, other.begin() + 5);
  EXPECT_EQ(find_overlap(test, Documents{other}).shared, 8);
  text.resize(12);
  EXPECT_EQ(find_overlap(test, Documents{text}).shared, 0);
}

}  // namespace
}  // namespace carat::audit
