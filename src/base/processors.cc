#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace carat {
namespace {

constexpr int kNoLimit = std::numeric_limits<int>::max();

// Numbers of the processors in the affinity mask; empty if it cannot be read.
std::vector<int> affine_processors() {
  for (int n = 1024; n <= 1 << 16; n *= 2) {
    cpu_set_t* set = CPU_ALLOC(n);
    if (!set) return {};
    const size_t size = CPU_ALLOC_SIZE(n);
    std::vector<int> processors;
    const bool ok = sched_getaffinity(0, size, set) == 0;
    for (int i = 0; ok && i < n; ++i) {
      if (CPU_ISSET_S(i, size, set)) processors.push_back(i);
    }
    CPU_FREE(set);
    if (ok) return processors;
  }
  return {};
}

std::optional<long long> read_number(const std::string& path) {
  std::ifstream in(path);
  long long x;
  return in >> x ? std::optional(x) : std::nullopt;
}

// The first line of a file; empty if there is none.
std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// Cores among the processors, told by which processors share one. Numbers of cores would not do:
// on ARM they begin anew in every cluster.
int count_cores(const std::string& root, const std::vector<int>& processors) {
  std::set<std::string> cores;
  for (const int i : processors) {
    const std::string at = root + "/sys/devices/system/cpu/cpu" + std::to_string(i) + "/topology/";
    std::string siblings = read_line(at + "core_cpus_list");
    if (siblings.empty()) siblings = read_line(at + "thread_siblings_list");
    if (siblings.empty()) return static_cast<int>(processors.size());
    cores.insert(std::move(siblings));
  }
  return static_cast<int>(cores.size());
}

int processors_for(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return kNoLimit;
  const long long n = quota / period + (quota % period != 0);
  return static_cast<int>(std::min<long long>(n, kNoLimit));
}

// cgroup v2: "max 100000" or "150000 100000".
int limit_v2(const std::string& folder) {
  std::ifstream in(folder + "/cpu.max");
  long long quota = 0, period = 0;
  return in >> quota >> period ? processors_for(quota, period) : kNoLimit;
}

int limit_v1(const std::string& folder) {
  const auto quota = read_number(folder + "/cpu.cfs_quota_us");
  const auto period = read_number(folder + "/cpu.cfs_period_us");
  return quota && period ? processors_for(*quota, *period) : kNoLimit;
}

// The least limit of a group and all above it: path is "/a/b", the mount holds "" and "/a" too.
template <class F>
int least_limit(const std::string& mount, std::string path, F limit_of) {
  int least = limit_of(mount);
  while (!path.empty() && path != "/") {
    least = std::min(least, limit_of(mount + path));
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
  return least;
}

int group_limit(const std::string& root) {
  const std::string groups = root + "/sys/fs/cgroup";
  // In a container the mount's own root is the group even where /proc names another path.
  int least = std::min(limit_v2(groups), limit_v1(groups + "/cpu"));
  least = std::min(least, limit_v1(groups + "/cpu,cpuacct"));
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    if (second == first + 1) {
      least = std::min(least, least_limit(groups, path, limit_v2));
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name != "cpu") continue;
      // The mount is named after all its controllers; "cpu" alone is a link that may be missing.
      least = std::min({least, least_limit(groups + "/cpu", path, limit_v1),
                        least_limit(groups + "/" + controllers, path, limit_v1)});
    }
  }
  return least;
}

}  // namespace

int usable_processors(const std::string& root) {
  const std::vector<int> processors = affine_processors();
  const int cores = processors.empty() ? static_cast<int>(std::thread::hardware_concurrency())
                                       : count_cores(root, processors);
  return std::max(1, std::min(cores, group_limit(root)));
}

}  // namespace carat
