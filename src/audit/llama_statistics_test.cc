#include "audit/llama_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/file.h"

namespace carat::audit {
namespace {

// Made by tests/vectors/llama_kld.py, which says how to test with others.
std::string vector_file(const char* name) {
  const char* const other = std::getenv("CARAT_KLD_VECTORS");
  const std::string folder =
      other ? other : std::string(CARAT_SOURCE_DIR) + "/tests/vectors/llama_kld";
  return folder + "/" + name;
}

std::vector<float> floats_of(const std::string& path) {
  const MappedFile file(path);
  std::vector<float> values(file.bytes().size() / sizeof(float));
  std::memcpy(values.data(), file.bytes().data(), values.size() * sizeof(float));
  return values;
}

TEST(LlamaVectors, EveryDigitIsThatOfTheTool) {
  const KldFile base(vector_file("base.kld"));
  const std::vector<float> logits = floats_of(vector_file("candidate.f32"));
  const auto vocab = static_cast<size_t>(base.vocab_size());
  const auto rows = static_cast<size_t>(base.rows_per_chunk());
  ASSERT_EQ(logits.size(), static_cast<size_t>(base.chunks()) * rows * vocab);
  LlamaStatistics statistics;
  std::string printed;
  for (int64_t c = 0; c < base.chunks(); ++c) {
    for (size_t r = 0; r < rows; ++r) {
      const size_t at = (static_cast<size_t>(c) * rows + r) * vocab;
      const auto next = base.tokens(c)[static_cast<size_t>(base.first_position()) + r + 1];
      statistics.add(llama_position(base.row(c, static_cast<int64_t>(r)),
                                    std::span(logits).subspan(at, vocab), next));
    }
    printed += statistics.chunk_line(c + 1);
  }
  printed += "\n" + statistics.text();
  std::string expected = read_text_file(vector_file("expected.txt"), 1 << 20);
  while (expected.ends_with("\n\n")) expected.pop_back();
  EXPECT_EQ(printed, expected);
  EXPECT_NE(expected.find("Same top p:"), std::string::npos);
}

TEST(LlamaVectors, EveryByteIsThatOfTheTool) {
  const KldFile base(vector_file("base.kld"));
  const MappedFile bytes(vector_file("base.kld"));
  std::vector<int32_t> tokens;
  for (int64_t c = 0; c < base.chunks(); ++c) {
    tokens.insert(tokens.end(), base.tokens(c).begin(), base.tokens(c).end());
  }
  const std::string head = kld_head(base.context(), base.vocab_size(), base.chunks(), tokens);
  ASSERT_EQ(std::memcmp(head.data(), bytes.bytes().data(), head.size()), 0);

  const std::vector<float> logits = floats_of(vector_file("base.f32"));
  const auto vocab = static_cast<size_t>(base.vocab_size());
  const size_t rows = logits.size() / vocab;
  ASSERT_GE(rows, static_cast<size_t>(base.rows_per_chunk()));
  std::vector<std::byte> row(static_cast<size_t>(kld_row_bytes(base.vocab_size())));
  for (size_t r = 0; r < rows; ++r) {
    encode_kld_row(std::span(logits).subspan(r * vocab, vocab), row);
    EXPECT_EQ(
        std::memcmp(row.data(), bytes.bytes().data() + head.size() + r * row.size(), row.size()), 0)
        << r;
  }
}

// One row of four equally likely tokens, so that every figure is known.
TEST(LlamaStatistics, ClosedForm) {
  const std::vector<float> base(4, 0.0f);
  std::vector<std::byte> bytes(static_cast<size_t>(kld_row_bytes(4)));
  encode_kld_row(base, bytes);
  const KldRow row{0, static_cast<float>(-std::log(4.0)), bytes.data() + 8};
  // q = (1/2, 1/6, 1/6, 1/6)
  const std::vector<float> logits = {static_cast<float>(std::log(3.0)), 0, 0, 0};
  const LlamaPosition p = llama_position(row, logits, 0);
  EXPECT_NEAR(p.kld, 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-6);
  EXPECT_NEAR(p.nll, std::log(2.0), 1e-6);
  EXPECT_NEAR(p.nll_base, std::log(4.0), 1e-6);
  EXPECT_NEAR(p.p_diff, 0.25, 1e-6);
  EXPECT_TRUE(p.same_top);
  EXPECT_FALSE(llama_position(row, std::vector<float>{0, 0, 1, 0}, 0).same_top);
}

TEST(LlamaStatistics, ErrorsArePlainStandardErrorsFromElevenPositionsOn) {
  LlamaStatistics s;
  double mean = 0, square = 0;
  for (double i = 1; i <= 11; ++i) {
    s.add({.kld = i, .nll = static_cast<float>(i), .nll_base = 1, .p_diff = 0.5f});
    if (i == 10) {
      EXPECT_EQ(s.mean_kld().error, 0);
    }
    mean += i / 11.0;
    square += i * i / 11.0;
  }
  EXPECT_NEAR(s.mean_kld().value, mean, 1e-12);
  EXPECT_NEAR(s.mean_kld().error, std::sqrt((square - mean * mean) / 10), 1e-12);
  EXPECT_NEAR(s.log_ratio().value, mean - 1, 1e-12);
  EXPECT_NEAR(s.rms_p_diff().value, 0.5, 1e-12);
  EXPECT_EQ(s.kld_median(), 6.0f);
  EXPECT_EQ(s.kld_percentile(0.25f), 3.5f);
  EXPECT_EQ(s.kld_percentile(1), 11.0f);
  EXPECT_EQ(s.text(), "");  // too few for the tool
}

}  // namespace
}  // namespace carat::audit
