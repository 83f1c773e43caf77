#include "convert/synth.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "io/testing/temp_dir.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace carat::convert {
namespace {

TEST(SyntheticVocab, HasThePublishedSizes) {
  const text::Vocab vocab = synthetic_vocab(262144);
  EXPECT_EQ(vocab.size(), 262144);
  EXPECT_EQ(vocab.merges.size(), 514906u);
}

TEST(SyntheticVocab, SmallOnesHaveEverythingATokenizerNeeds) {
  const text::Vocab vocab = synthetic_vocab(512);
  EXPECT_EQ(vocab.size(), 512);
  EXPECT_TRUE(vocab.special.has_turns());
  EXPECT_EQ(vocab.byte_tokens.size(), 256u);
  const text::Tokenizer tokenizer(vocab);
  for (const std::string text : {"the wizard", "\n\n\n", "caf\xc3\xa9 {x}\t1+1", " a  b\n\nc"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  // A run of newlines is one token, and a learned string too.
  EXPECT_EQ(tokenizer.encode("\n\n\n").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" a").size(), 1u);
}

TEST(SyntheticVocab, LongerStringsAreOneToken) {
  const text::Tokenizer tokenizer(synthetic_vocab(32768));
  EXPECT_EQ(tokenizer.encode("abc").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" ab").size(), 1u);
}

int64_t bytes_on_disk(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return static_cast<int64_t>(std::filesystem::file_size(path));
  }
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(path)) {
    bytes += static_cast<int64_t>(file.file_size());
  }
  return bytes;
}

TEST(SyntheticBytes, AreThoseOfTheFiles) {
  const io::testing::TempDir dir;
  int n = 0;
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const text::Vocab vocab =
        synthetic_vocab(static_cast<int32_t>(model::config_of_size(size).vocab_size));
    const auto expect_exact = [&](const char* type, bool gguf) {
      SynthOptions options;
      options.size = size;
      options.type = type;
      options.gguf = gguf;
      options.target = dir.file(std::to_string(n++) + (gguf ? ".gguf" : ""));
      (void)write_synthetic(options);
      EXPECT_EQ(synthetic_bytes(options, vocab), bytes_on_disk(options.target))
          << size << " " << type << (gguf ? " gguf" : " hf");
    };
    for (const char* type : {"bf16", "q4_0", "q4_k_m", "q8_0"}) expect_exact(type, true);
    for (const char* type : {"f32", "bf16", "q4_0"}) expect_exact(type, false);
  }
}

}  // namespace
}  // namespace carat::convert
