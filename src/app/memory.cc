#include "app/memory.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace carat::app {
namespace {

struct Closer {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, Closer>;

// The number after `key` in a file of lines "Key:   123 kB", in bytes.
std::optional<int64_t> kilobytes_in(const char* path, const char* key) {
  const File file(std::fopen(path, "r"));
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

std::optional<int64_t> number_in(const char* path) {
  const File file(std::fopen(path, "r"));
  long long value = 0;
  if (!file || std::fscanf(file.get(), "%lld", &value) != 1) return std::nullopt;
  return value;
}

}  // namespace

int64_t available_memory() {
  int64_t bytes = kilobytes_in("/proc/meminfo", "MemAvailable")
                      .value_or(std::numeric_limits<int64_t>::max() / 2);
  const auto limit = number_in("/sys/fs/cgroup/memory.max");
  const auto used = number_in("/sys/fs/cgroup/memory.current");
  if (limit && used) bytes = std::min(bytes, std::max<int64_t>(0, *limit - *used));
  return bytes;
}

int64_t peak_resident_bytes() { return kilobytes_in("/proc/self/status", "VmHWM").value_or(0); }

int64_t parse_bytes(const std::string& text, const std::string& option) {
  const auto fail = [&] {
    return Error({"not a size", {}, option, "a number with kB, MB or GB", text, {}});
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
  if (factor == 0 || value * factor > 1e18) throw fail();
  return static_cast<int64_t>(value * factor);
}

}  // namespace carat::app
