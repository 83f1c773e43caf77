#include "app/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "app/options.h"
#include "app/traffic.h"
#include "base/error.h"
#include "model/testing/random_model.h"

namespace carat::app {
namespace {

TEST(ParseBytes, KnowsUnits) {
  EXPECT_EQ(parse_bytes("1048576", "--x"), 1048576);
  EXPECT_EQ(parse_bytes("20kB", "--x"), 20000);
  EXPECT_EQ(parse_bytes("2.5GB", "--x"), 2500000000);
  EXPECT_EQ(parse_bytes("512 MB", "--x"), 512000000);
  EXPECT_EQ(parse_bytes("1.5GiB", "--x"), 3 << 29);
  EXPECT_EQ(parse_bytes("3 MiB", "--x"), 3 << 20);
  EXPECT_EQ(parse_bytes("1KiB", "--x"), 1024);
  for (const char* bad : {"", "MB", "-1", "1TB", "nan", "1e30GB", "5 apples"}) {
    EXPECT_THROW((void)parse_bytes(bad, "--x"), UsageError) << bad;
  }
}

TEST(Memory, OfAGroupDoesNotCountPagesOfFiles) {
  EXPECT_EQ(group_memory("max\n", "500\n", ""), std::nullopt);
  EXPECT_EQ(group_memory("", "", ""), std::nullopt);
  EXPECT_EQ(group_memory("1000\n", "600\n", "anon 200\nfile 400\n"), 400);
  EXPECT_EQ(group_memory("1000\n", "600\n", "anon 200\ninactive_file 250\nactive_file 50\n"), 700);
  EXPECT_EQ(group_memory("1000\n", "600\n",
                         "inactive_file 1\nactive_file 1\ntotal_inactive_file 250\n"
                         "total_active_file 50\n"),
            700);
  EXPECT_EQ(group_memory("1000\n", "2000\n", ""), 0);
  EXPECT_EQ(group_memory("1000\n", "100\n", "inactive_file 500\n"), 1000);
}

namespace fs = std::filesystem;

// A folder that stands for the root of the file system.
class GroupMemory : public testing::Test {
 protected:
  GroupMemory() : root_(fs::temp_directory_path() / ("carat_memory_" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:   8000 kB\n");
  }
  ~GroupMemory() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  void write_v2(const std::string& group, const std::string& limit, int64_t used) {
    write("sys/fs/cgroup/" + group + "/memory.max", limit + "\n");
    write("sys/fs/cgroup/" + group + "/memory.current", std::to_string(used) + "\n");
  }
  void write_v1(const std::string& group, const std::string& limit, int64_t used) {
    write("sys/fs/cgroup/memory/" + group + "/memory.limit_in_bytes", limit + "\n");
    write("sys/fs/cgroup/memory/" + group + "/memory.usage_in_bytes", std::to_string(used) + "\n");
  }
  int64_t available() const { return available_memory(root_.string()); }

  const fs::path root_;
};

TEST_F(GroupMemory, WithoutGroupsIsTheSystems) { EXPECT_EQ(available(), 8000 * 1024); }

TEST_F(GroupMemory, EveryGroupOnThePathLimits) {
  write("proc/self/cgroup", "0::/user.slice/job/run\n");
  for (const char* group : {"user.slice", "user.slice/job", "user.slice/job/run"}) {
    write_v2(group, "max", 1000);
  }
  EXPECT_EQ(available(), 8000 * 1024);
  write_v2("user.slice/job", "5000000", 1000000);  // neither the root nor the leaf
  EXPECT_EQ(available(), 4000000);
  write_v2("user.slice", "3000000", 1000000);
  EXPECT_EQ(available(), 2000000);
  write_v2("user.slice/job/run", "1500000", 500000);
  EXPECT_EQ(available(), 1000000);
  write_v2("user.slice/other", "10", 0);  // not on the path
  EXPECT_EQ(available(), 1000000);
  write_v2("", "900000", 0);  // a container's own root
  EXPECT_EQ(available(), 900000);
}

TEST_F(GroupMemory, EveryGroupOnThePathLimitsInVersion1) {
  write("proc/self/cgroup", "9:cpu:/a/b\n4:hugetlb,memory:/a/b/c\n");
  write_v1("a/b", "2000000", 500000);
  EXPECT_EQ(available(), 1500000);
  write_v1("", "700000", 0);
  EXPECT_EQ(available(), 700000);
}

TEST_F(GroupMemory, PeakIsNothingWhereTheSystemDoesNotSay) {
  EXPECT_EQ(peak_resident_bytes(root_.string()), std::nullopt);
  write("proc/self/status", "Name:\tcarat\nThreads:\t1\n");
  EXPECT_EQ(peak_resident_bytes(root_.string()), std::nullopt);
  write("proc/self/status", "VmPeak:\t 900 kB\nVmHWM:\t     700 kB\n");
  EXPECT_EQ(peak_resident_bytes(root_.string()), 700 * 1024);
}

TEST(Memory, IsMeasured) {
  EXPECT_GT(available_memory(), 0);
  ASSERT_TRUE(peak_resident_bytes());
  EXPECT_GT(*peak_resident_bytes(), 1 << 20);
}

model::Model random_model(const char* size) {
  model::Model m;
  m.weights = model::testing::random_weights(model::config_of_size(size), DType::kF32, DType::kF32);
  return m;
}

// Bytes of every parameter once, whatever a step needs of them.
int64_t all_bytes(const model::Model& m) {
  int64_t bytes = 0;
  for (const kernels::Weight& w : m.weights.all) bytes += w.count * w.rows * w.row_size();
  return bytes;
}

TEST(DecodeBytes, CountsTheWeightsOfOneStep) {
  // K = V kind: nothing is skipped; one more row of the embedding, and one position in six layers.
  const model::Model dense = random_model("tinykv");
  const model::Config& c = dense.config();
  int64_t keys = 0;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    keys += 2 * c.layer(i).n_kv_heads * c.layer(i).head_dim * 4;
  }
  EXPECT_EQ(decode_bytes(dense, kernels::KvType::kF32, 0), all_bytes(dense) + c.dim * 4 + keys);

  // Per-layer tables and experts are read in part.
  const model::Model small = random_model("tiny");
  const model::Config& s = small.config();
  const int64_t table = s.ple_vocab_size * s.n_layers * s.ple_dim * 4;
  EXPECT_LT(decode_bytes(small, kernels::KvType::kF32, 0), all_bytes(small) - table / 2);
  const model::Model mixture = random_model("tinymoe");
  EXPECT_LT(decode_bytes(mixture, kernels::KvType::kF32, 0), all_bytes(mixture));
}

TEST(DecodeBytes, LocalLayersStopGrowingAtTheirWindow) {
  const model::Model m = random_model("tinykv");
  const model::Config& c = m.config();
  int64_t global = 0;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const model::LayerConfig layer = c.layer(i);
    if (layer.is_global) global += 2 * layer.n_kv_heads * (layer.head_dim + 4);
  }
  const auto at = [&](int64_t position) { return decode_bytes(m, kernels::KvType::kI8, position); };
  EXPECT_EQ(at(1001) - at(1000), global);
  EXPECT_GT(at(1) - at(0), global);
}

}  // namespace
}  // namespace carat::app
