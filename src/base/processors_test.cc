#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

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
  static int affine() {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
  }
  // Every processor i of the mask is half of core i / 2.
  void pair_up() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &set)) continue;
      const std::string at = "sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/";
      write(at + "core_id", std::to_string(i / 2) + "\n");
      write(at + "physical_package_id", "0\n");
    }
  }

  fs::path root_;
};

TEST_F(Processors, NothingKnownMeansAllOfTheMask) {
  if (affine() > 0) EXPECT_EQ(usable(), affine());
}

TEST_F(Processors, HyperThreadsCountOnce) {
  const int before = usable();
  pair_up();
  EXPECT_LT(usable(), before + (before == 1));
  EXPECT_GE(2 * usable(), before);
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

TEST_F(Processors, BrokenFilesDoNotLimit) {
  const int all = usable();
  write("sys/fs/cgroup/cpu.max", "fast\n");
  write("proc/self/cgroup", "0::\nnonsense\n::\n");
  EXPECT_EQ(usable(), all);
}

}  // namespace
}  // namespace carat
