#include "audit/kld_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "audit/bad_files_test.h"
#include "audit/testing/bad_kld_files.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/testing/temp_dir.h"

namespace carat::audit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void read_all(std::span<const std::byte> bytes) {
  const KldFile file("x.kld", bytes);
  for (int64_t c = 0; c < file.chunks(); ++c) {
    (void)file.tokens(c);
    for (int64_t r = 0; r < file.rows_per_chunk(); ++r) (void)file.row(c, r);
  }
}

TEST(KldFile, BadFiles) { testing::expect_bad_files(testing::bad_kld_files(), read_all, "kld"); }

TEST(KldFile, EveryPrefixIsRefused) {
  const std::string good = testing::sound_kld();
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_THROW(read_all(testing::bytes_of(good.substr(0, n))), Error) << n;
  }
}

struct Row {
  explicit Row(std::span<const float> logits)
      : bytes(static_cast<size_t>(kld_row_bytes(static_cast<int64_t>(logits.size())))) {
    encode_kld_row(logits, bytes);
    std::memcpy(&row.scale, bytes.data(), 4);
    std::memcpy(&row.floor, bytes.data() + 4, 4);
    row.codes = bytes.data() + 8;
  }
  std::vector<std::byte> bytes;
  KldRow row;
};

TEST(EncodeKldRow, RoundsLogProbabilities) {
  Rng rng(3);
  std::vector<float> logits(1001);
  for (float& x : logits) x = static_cast<float>(rng.normal()) * 2;
  const Row r(logits);
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  for (size_t v = 0; v < logits.size(); ++v) {
    EXPECT_NEAR(r.row.log_p(static_cast<int64_t>(v)), logits[v] - std::log(sum),
                0.51 * static_cast<double>(r.row.scale) + 2e-6);
  }
  // An odd vocabulary is padded with a zero.
  EXPECT_EQ(r.bytes.size(), 8u + 2 * 1002);
  EXPECT_EQ(r.bytes[r.bytes.size() - 1], std::byte{0});
  EXPECT_EQ(r.bytes[r.bytes.size() - 2], std::byte{0});
}

TEST(EncodeKldRow, RaisesWhatIsFarBelowTheLargest) {
  const std::vector<float> logits = {0, -15.5f, -16, -40, -kInfinity};
  const Row r(logits);
  EXPECT_EQ(r.row.scale, 16.0f / 65535.0f);
  EXPECT_EQ(r.row.code(0), 65535);
  EXPECT_NEAR(r.row.log_p(1), -15.5, 2e-4);
  for (const int64_t v : {2, 3, 4}) EXPECT_EQ(r.row.code(v), 0);
  EXPECT_NEAR(r.row.floor, -16, 1e-5);
}

TEST(EncodeKldRow, TakesEqualLogits) {
  const Row r(std::vector<float>(4, 7.0f));
  EXPECT_EQ(r.row.scale, 0);
  EXPECT_NEAR(r.row.log_p(3), -std::log(4.0), 1e-6);
}

TEST(KldFile, GivesBackWhatWasWritten) {
  io::testing::TempDir folder;
  const std::string path = folder.file("x.kld");
  constexpr int64_t kContext = 7, kVocab = 9, kChunks = 2;  // rows 3, 4, 5 of a chunk
  std::vector<int32_t> tokens;
  for (int i = 0; i < kContext * kChunks; ++i) tokens.push_back(i % kVocab);
  std::vector<std::vector<float>> logits;
  {
    std::ofstream out(path, std::ios::binary);
    out << kld_head(kContext, kVocab, kChunks, tokens);
    Rng rng(5);
    for (int r = 0; r < 3 * kChunks; ++r) {
      logits.emplace_back(kVocab);
      for (float& x : logits.back()) x = static_cast<float>(rng.normal());
      const Row row(logits.back());
      out.write(reinterpret_cast<const char*>(row.bytes.data()),
                static_cast<std::streamsize>(row.bytes.size()));
    }
  }
  const KldFile file(path);
  EXPECT_EQ(file.context(), kContext);
  EXPECT_EQ(file.vocab_size(), kVocab);
  EXPECT_EQ(file.chunks(), kChunks);
  EXPECT_EQ(file.first_position(), 3);
  EXPECT_EQ(file.rows_per_chunk(), 3);
  EXPECT_EQ(file.tokens(1)[2], tokens[kContext + 2]);
  for (int64_t c = 0; c < kChunks; ++c) {
    for (int64_t r = 0; r < 3; ++r) {
      const KldRow row = file.row(c, r);
      const Row expected(logits[static_cast<size_t>(3 * c + r)]);
      for (int64_t v = 0; v < kVocab; ++v) EXPECT_EQ(row.code(v), expected.row.code(v));
      EXPECT_EQ(row.floor, expected.row.floor);
    }
    file.release(c);  // of no effect on what is read
  }
  EXPECT_EQ(file.row(0, 0).scale, Row(logits[0]).row.scale);
}

}  // namespace
}  // namespace carat::audit
