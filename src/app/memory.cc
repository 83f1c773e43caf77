#include "app/memory.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "app/options.h"

namespace carat::app {
namespace {

struct Closer {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, Closer>;

// The number after `key` in a file of lines "Key:   123 kB", in bytes.
std::optional<int64_t> kilobytes_in(const std::string& path, const char* key) {
  const File file(std::fopen(path.c_str(), "r"));
  if (!file) return std::nullopt;
  std::array<char, 256> line;
  while (std::fgets(line.data(), line.size(), file.get())) {
    const std::string_view text(line.data());
    if (!text.starts_with(key)) continue;
    long long value = 0;
    if (std::sscanf(line.data() + std::string_view(key).size(), ": %lld kB", &value) == 1) {
      return int64_t{value} * 1024;
    }
  }
  return std::nullopt;
}

// A small file as text; empty if there is none.
std::string text_of(const std::string& path) {
  const File file(std::fopen(path.c_str(), "r"));
  std::string text;
  if (!file) return text;
  std::array<char, 4096> part;
  while (const size_t n = std::fread(part.data(), 1, part.size(), file.get())) {
    text.append(part.data(), n);
  }
  return text;
}

// The number that `text` begins with, or the one after "key " at the beginning of one of its lines.
std::optional<int64_t> number_in(std::string_view text, std::string_view key = {}) {
  if (!key.empty()) {
    size_t at = 0;
    while (!text.substr(at).starts_with(key) || text.substr(at + key.size(), 1) != " ") {
      at = text.find('\n', at);
      if (at == std::string_view::npos) return std::nullopt;
      ++at;
    }
    text.remove_prefix(at + key.size() + 1);
  }
  int64_t value = 0;
  const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || value < 0) return std::nullopt;
  return value;
}

// Folders of the memory control groups that limit this process, versions 2 and 1: the mount's own
// root, which is the group in a container, and every part of the path that /proc names, since a
// group's limit holds for all below it.
struct Group {
  std::string folder;
  const char *limit, *current;
};
std::vector<Group> memory_groups(const std::string& root) {
  const std::string mount = root + "/sys/fs/cgroup";
  std::vector<Group> groups;
  const auto add_v2 = [&](const std::string& path) {
    groups.push_back({mount + path, "/memory.max", "/memory.current"});
  };
  const auto add_v1 = [&](const std::string& path) {
    groups.push_back(
        {mount + "/memory" + path, "/memory.limit_in_bytes", "/memory.usage_in_bytes"});
  };
  add_v2("");
  add_v1("");
  // Lines "number:controllers:path"; version 2 names no controllers.
  const std::string text = text_of(root + "/proc/self/cgroup");
  for (std::string_view lines = text; !lines.empty();) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? first : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers =
        "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",memory,") == controllers.npos) continue;
    const std::string path(line.substr(second + 1));
    for (size_t end = path.find('/', 1); path.size() > 1; end = path.find('/', end + 1)) {
      (v2 ? add_v2(path.substr(0, end)) : add_v1(path.substr(0, end)));
      if (end == path.npos) break;
    }
  }
  return groups;
}

}  // namespace

std::optional<int64_t> group_memory(const std::string& limit, const std::string& current,
                                    const std::string& stat) {
  const auto most = number_in(limit), used = number_in(current);
  if (!most || !used) return std::nullopt;
  int64_t files = 0;
  for (const char* list : {"active_file", "inactive_file"}) {
    // Version 1 counts the group's children only under these names.
    const auto total = number_in(stat, std::string("total_") + list);
    files += total ? *total : number_in(stat, list).value_or(0);
  }
  return std::max<int64_t>(0, *most - std::max<int64_t>(0, *used - files));
}

int64_t available_memory(const std::string& root) {
  int64_t bytes = kilobytes_in(root + "/proc/meminfo", "MemAvailable")
                      .value_or(std::numeric_limits<int64_t>::max() / 2);
  for (const Group& g : memory_groups(root)) {
    const auto left = group_memory(text_of(g.folder + g.limit), text_of(g.folder + g.current),
                                   text_of(g.folder + "/memory.stat"));
    if (left) bytes = std::min(bytes, *left);
  }
  return bytes;
}

std::optional<int64_t> peak_resident_bytes(const std::string& root) {
  return kilobytes_in(root + "/proc/self/status", "VmHWM");
}

int64_t parse_bytes(const std::string& text, const std::string& option) {
  const auto fail = [&] {
    return UsageError(option + " takes a number with kB, MB, GB, MiB or GiB, not '" + text + "'");
  };
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value);
  if (code != std::errc() || !(value >= 0)) throw fail();
  std::string_view unit(stop, static_cast<size_t>(end - stop));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  double factor = 0;
  if (unit.empty() || unit == "B") factor = 1;
  if (unit == "kB" || unit == "KB" || unit == "k") factor = 1e3;
  if (unit == "MB" || unit == "M") factor = 1e6;
  if (unit == "GB" || unit == "G") factor = 1e9;
  if (unit == "KiB") factor = 0x1p10;
  if (unit == "MiB") factor = 0x1p20;
  if (unit == "GiB") factor = 0x1p30;
  if (factor == 0 || value * factor > 1e18) throw fail();
  return static_cast<int64_t>(value * factor);
}

}  // namespace carat::app
