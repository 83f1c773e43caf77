#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace carat {
namespace {

namespace fs = std::filesystem;

class Processors : public testing::Test {
 protected:
  Processors()
      : root_(fs::temp_directory_path() / ("carat_processors_" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~Processors() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const fs::path p = root_ / path;
    fs::create_directories(p.parent_path());
    std::ofstream(p) << text;
  }
  int usable() const { return usable_processors(root_.string()); }
  // The processors of the mask.
  static std::vector<int> affine() {
    std::vector<int> processors;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return processors;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &set)) processors.push_back(i);
    }
    return processors;
  }
  void topology(int processor, const std::string& file, const std::string& text) {
    write("sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/" + file, text);
  }
  static std::string pair_of(int processor) {
    return std::to_string(processor / 2 * 2) + "-" + std::to_string(processor / 2 * 2 + 1) + "\n";
  }

  fs::path root_;
};

TEST_F(Processors, NothingKnownMeansAllOfTheMask) {
  if (!affine().empty()) EXPECT_EQ(usable(), static_cast<int>(affine().size()));
}

TEST_F(Processors, HyperThreadsCountOnce) {
  for (const char* file : {"core_cpus_list", "thread_siblings_list"}) {
    fs::remove_all(root_ / "sys");
    std::set<int> cores;
    for (const int i : affine()) {
      topology(i, file, pair_of(i));
      cores.insert(i / 2);
    }
    EXPECT_EQ(usable(), static_cast<int>(std::max<size_t>(1, cores.size()))) << file;
  }
}

// Clusters of ARM processors, described by a device tree: the numbers of the cores repeat.
TEST_F(Processors, CoresOfSeveralClustersHaveTheSameNumbers) {
  for (const int i : affine()) {
    topology(i, "core_id", "0\n");
    topology(i, "physical_package_id", "0\n");
    topology(i, "core_cpus_list", std::to_string(i) + "\n");
  }
  EXPECT_EQ(usable(), static_cast<int>(std::max<size_t>(1, affine().size())));
}

TEST_F(Processors, QuotasOfBothVersionsLimit) {
  write("sys/fs/cgroup/cpu.max", "max 100000\n");
  const int all = usable();
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(usable(), all);
  write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  EXPECT_EQ(usable(), 1);

  fs::remove_all(root_ / "sys");
  write("proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/x\n");
  EXPECT_EQ(usable(), all);
  write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(usable(), all);
  write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "90000\n");
  EXPECT_EQ(usable(), 1);
}

TEST_F(Processors, MountsOfVersion1AreFoundWithoutTheLink) {
  for (const char* controllers : {"cpu,cpuacct", "cpuacct,cpu"}) {
    fs::remove_all(root_ / "sys");
    write("proc/self/cgroup", std::string("4:") + controllers + ":/x/y\n");
    const std::string mount = std::string("sys/fs/cgroup/") + controllers;
    write(mount + "/x/cpu.cfs_quota_us", "50000\n");
    write(mount + "/x/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(usable(), 1) << controllers;
  }
}

TEST_F(Processors, BrokenFilesDoNotLimit) {
  const int all = usable();
  write("sys/fs/cgroup/cpu.max", "fast\n");
  write("proc/self/cgroup", "0::\nnonsense\n::\n");
  EXPECT_EQ(usable(), all);
}

}  // namespace
}  // namespace carat
