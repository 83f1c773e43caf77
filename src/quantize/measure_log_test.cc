// Files of measurements: what is read again, what was cut, and what is refused.
#include "quantize/measure_log.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/error.h"
#include "convert/testing/checkpoints.h"

namespace carat::quantize {
namespace {

using Chunks = MeasureLog::Chunks;

class MeasureLogTest : public testing::Test {
 protected:
  MeasureLog open() { return {path_, key_, counts_}; }
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  std::string text() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // What the error says.
  std::string refused() {
    try {
      (void)open();
    } catch (const Error& e) {
      return e.what();
    }
    return "not refused";
  }

  convert::testing::TemporaryFolder folder_{"measure_log"};
  std::string path_ = folder_ / "state";
  std::vector<LogKey> key_ = {{"isa", "avx2", "another instruction set"},
                              {"model", "5e0a", "another model"}};
  std::array<std::vector<int64_t>, 2> counts_ = {{{10, 20}, {30}}};
  const std::vector<Pick> picks_ = {Pick(1), Pick(), Pick(0)};
  const std::string head_ = "carat measurements 2 isa=avx2 model=5e0a\n";
};

TEST_F(MeasureLogTest, KeepsSumsAndTypes) {
  {
    MeasureLog log = open();
    EXPECT_EQ(log.find(Chunks::kSearch, picks_), nullptr);
    log.add(Chunks::kSearch, picks_, {{0.1, 1.0 / 3}, counts_[0]});
    log.add(Chunks::kCheck, picks_, {{7e-300}, counts_[1]});
    const std::vector<TypeChoice> types = {{DType::kQ4_K, 5, 0.1, 0.25}, {DType::kF16, 9, 0, 0}};
    log.add_types("blk.0.attn_q.weight", types);
    EXPECT_NE(log.find(Chunks::kSearch, picks_), nullptr);
  }
  EXPECT_EQ(text(), head_ +
                        "search b-a 0.1 0.3333333333333333\ncheck b-a 7e-300\n"
                        "types blk.0.attn_q.weight Q4_K 0.1 0.25 F16 0 0\n");
  MeasureLog log = open();
  const Klds* found = log.find(Chunks::kSearch, picks_);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->sums, (std::vector<double>{0.1, 1.0 / 3}));
  EXPECT_EQ(found->counts, counts_[0]);
  EXPECT_EQ(log.find(Chunks::kCheck, picks_)->sums, std::vector<double>{7e-300});
  EXPECT_EQ(log.find(Chunks::kCheck, std::vector<Pick>(3)), nullptr);
  EXPECT_EQ(log.find_types("blk.1.attn_q.weight"), nullptr);
  ASSERT_NE(log.find_types("blk.0.attn_q.weight"), nullptr);
  const TypeChoice first = (*log.find_types("blk.0.attn_q.weight"))[0];
  EXPECT_EQ(first.dtype, DType::kQ4_K);
  EXPECT_EQ(first.error, 0.1);
  EXPECT_EQ(first.relative_error, 0.25);
}

TEST_F(MeasureLogTest, MakesACutLineAnew) {
  const std::string whole = head_ + "search b-a 0.1 2\n";
  for (const std::string cut : {"search aa", "types x Q4_K 1", "se"}) {
    write(whole + cut);
    {
      MeasureLog log = open();
      EXPECT_NE(log.find(Chunks::kSearch, picks_), nullptr);
      EXPECT_EQ(text(), whole);
      log.add(Chunks::kCheck, picks_, {{1}, counts_[1]});
    }
    EXPECT_EQ(text(), whole + "check b-a 1\n");
  }
  write(head_.substr(0, 12));
  (void)open();
  EXPECT_EQ(text(), head_);
}

TEST_F(MeasureLogTest, RefusesWhatIsNoMeasurement) {
  for (const std::string line :
       {"search b-a -1 2", "search b-a nan 2", "search b-a inf 2", "search b-a 1",
        "search b-a 1 2 3", "search b-a 1e999 2", "search b-a 1 1e300", "search b-a 1 x",
        "check b-a 1 2", "other b-a 1 2", "search", "", "types x", "types x Q9_9 1 1",
        "types x Q4_K -1 1", "types x Q4_K 1"}) {
    const std::string file = head_ + "search aaa 1 2\n" + line + "\nsearch b-a 0.1 2\n";
    write(file);
    const std::string says = refused();
    EXPECT_NE(says.find("not a measurement"), std::string::npos) << line << ": " << says;
    EXPECT_NE(says.find("line 3"), std::string::npos) << line << ": " << says;
    EXPECT_EQ(text(), file);
  }
}

TEST_F(MeasureLogTest, SaysWhatAnotherFileIsOf) {
  (void)open();
  key_[1].digest = "77";
  EXPECT_NE(refused().find("of another model"), std::string::npos) << refused();
  key_[0].digest = "neon";
  EXPECT_NE(refused().find("of another instruction set"), std::string::npos) << refused();
  EXPECT_EQ(text(), head_);
  for (const std::string other : {"mine", "mine\n", "carat measurements 1 5e0a\n"}) {
    write(other);
    EXPECT_NE(refused().find("not a file of measurements"), std::string::npos) << refused();
    EXPECT_EQ(text(), other);
  }
}

TEST_F(MeasureLogTest, IsOneRunsAtATime) {
  {
    MeasureLog log = open();
    log.add(Chunks::kCheck, picks_, {{1}, counts_[1]});
    const std::string before = text();
    EXPECT_NE(refused().find("another run"), std::string::npos) << refused();
    EXPECT_EQ(text(), before);
  }
  EXPECT_EQ(refused(), "not refused");
}

TEST_F(MeasureLogTest, RefusesWhereItCannotWrite) {
  path_ = folder_ / "none/state";
  EXPECT_NE(refused().find("cannot be written"), std::string::npos) << refused();
  path_ = folder_ / "";
  EXPECT_NE(refused().find("cannot be written"), std::string::npos) << refused();
  path_ = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_NE(refused().find("not a regular file"), std::string::npos) << refused();
}

}  // namespace
}  // namespace carat::quantize
