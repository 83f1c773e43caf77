#include "convert/synth.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace carat::convert
