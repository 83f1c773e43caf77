#include "io/imatrix_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "io/testing/bad_imatrix_files.h"
#include "io/testing/temp_dir.h"

namespace carat::io {
namespace {

using testing::TempDir;

Imatrix parse(const std::string& bytes) {
  return parse_imatrix(std::as_bytes(std::span(bytes)), "x.gguf");
}

std::string error_of(const std::string& bytes) {
  try {
    (void)parse(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

Imatrix sample() {
  return {{{"a", {8, 16, 24, 0, 0, 0}, {4, 0}}, {"b", {5}, {1000}}}, {"x.txt", "y.txt"}, 2, 512};
}

TEST(ImatrixFile, BadOnesAreRefusedAndTheSeedsAreThese) {
  std::set<std::string> names;
  for (const testing::BadFile& f : testing::bad_imatrix_files()) {
    SCOPED_TRACE(f.name);
    EXPECT_TRUE(names.insert(f.name).second);
    const std::string error = error_of(f.bytes);
    if (f.error.empty()) {
      EXPECT_EQ(error, "");
    } else {
      EXPECT_NE(error.find(f.error), std::string::npos) << "message: " << error;
      EXPECT_NE(error.find("x.gguf"), std::string::npos) << error;
    }
    const std::string seed = CARAT_SOURCE_DIR "/fuzz/corpus/imatrix/" + f.name;
    ASSERT_TRUE(std::filesystem::exists(seed)) << "run the target write_corpus";
    EXPECT_EQ(read_text_file(seed, 1 << 20), f.bytes);
  }
}

TEST(ImatrixFile, EveryPrefixIsRefusedUnlessItIsAnOlderFile) {
  const std::string gguf = testing::sound_imatrix_gguf(), dat = testing::sound_imatrix_dat();
  // The last tensor's padding may be missing.
  for (size_t n = 0; n + 32 < gguf.size(); ++n) EXPECT_NE(error_of(gguf.substr(0, n)), "") << n;
  const size_t entries = dat.size() - 5 - 8;  // behind them: a number, a length and a name
  for (size_t n = 0; n < dat.size(); ++n) {
    EXPECT_EQ(error_of(dat.substr(0, n)).empty(), n == entries || n == entries + 4) << n;
  }
}

TEST(ImatrixFile, EveryByteMayBeWrong) {
  for (const std::string& good : {testing::sound_imatrix_gguf(), testing::sound_imatrix_dat()}) {
    for (size_t i = 0; i < good.size(); ++i) {
      for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
        std::string bad = good;
        bad[i] = static_cast<char>(value);
        (void)error_of(bad);  // read or refused
      }
    }
  }
}

TEST(ImatrixFile, ReadsBothKinds) {
  const Imatrix gguf = parse(testing::sound_imatrix_gguf());
  EXPECT_EQ(gguf.chunk_count, 3);
  EXPECT_EQ(gguf.chunk_size, 512);
  EXPECT_EQ(gguf.datasets, std::vector<std::string>{"a.txt"});
  ASSERT_EQ(gguf.entries.size(), 2u);
  const ImatrixEntry* experts = gguf.find("blk.0.ffn_up_exps.weight");
  ASSERT_NE(experts, nullptr);
  EXPECT_EQ(experts->counts, (std::vector<float>{4, 0}));
  // The second expert saw nothing.
  EXPECT_EQ(experts->means(), (std::vector<float>{0.25f, 0.5f, 1, 1}));
  EXPECT_EQ(gguf.find("blk.0.ffn_down"), nullptr);

  const Imatrix dat = parse(testing::sound_imatrix_dat());
  EXPECT_EQ(dat.chunk_count, 3);
  EXPECT_EQ(dat.datasets, std::vector<std::string>{"a.txt"});
  ASSERT_NE(dat.find("b"), nullptr);
  EXPECT_EQ(dat.find("b")->means(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(dat.entries[0].name, "a");
}

TEST(ImatrixFile, WritesWhatItReads) {
  const TempDir folder;
  const std::string path = folder.file("m.gguf");
  const Imatrix m = sample();
  write_imatrix(path, m);
  const Imatrix read = read_imatrix(path);
  ASSERT_EQ(read.entries.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.entries[i].name, m.entries[i].name);
    EXPECT_EQ(read.entries[i].sums, m.entries[i].sums);
    EXPECT_EQ(read.entries[i].counts, m.entries[i].counts);
  }
  EXPECT_EQ(read.datasets, m.datasets);
  EXPECT_EQ(read.chunk_count, 2);
  EXPECT_EQ(read.chunk_size, 512);
}

TEST(ImatrixFile, TheBinaryKindKeepsMeans) {
  const TempDir folder;
  const std::string path = folder.file("m.dat");
  write_imatrix(path, sample());
  const Imatrix read = read_imatrix(path);
  ASSERT_EQ(read.entries.size(), 2u);
  EXPECT_EQ(read.entries[0].counts, (std::vector<float>{1}));  // 4 inputs are part of a chunk
  EXPECT_EQ(read.entries[0].means(), sample().entries[0].means());
  EXPECT_EQ(read.entries[1].counts, (std::vector<float>{2}));  // 1000 of 512
  EXPECT_FLOAT_EQ(read.entries[1].means()[0], 0.005f);
  EXPECT_EQ(read.datasets, std::vector<std::string>{"y.txt"});
  EXPECT_EQ(read.chunk_count, 2);
}

TEST(ImatrixFile, AFileThatIsMissingIsNamed) {
  EXPECT_THROW((void)read_imatrix("/no/such.gguf"), Error);
}

}  // namespace
}  // namespace carat::io
