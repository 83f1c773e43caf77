#include "io/gguf_split.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace carat::io {
namespace {

std::string suffix(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

}  // namespace

std::string part_path(const std::string& stem, int64_t number, int64_t count) {
  return stem + suffix(number, count);
}

std::vector<std::string> part_paths(const std::string& path, const GgufSplit& split) {
  const std::string own = suffix(split.number, split.count);
  if (!path.ends_with(own)) {
    throw Error({"the name of a part of a split model does not end in its number",
                 path,
                 {},
                 "a name that ends in " + own,
                 std::filesystem::path(path).filename().string(),
                 "give the parts back the names that they were published under"});
  }
  const std::string stem = path.substr(0, path.size() - own.size());
  std::vector<std::string> paths;
  for (int64_t i = 0; i < split.count; ++i) {
    paths.push_back(part_path(stem, i, split.count));
    std::error_code ignored;
    if (std::filesystem::exists(paths.back(), ignored)) continue;
    if (std::filesystem::exists(paths.back() + ".part", ignored)) {
      throw Error({"a part of a split model is missing: its conversion was interrupted",
                   paths.back(),
                   {},
                   {},
                   "only the beginning of it: " + paths.back() + ".part",
                   "run the same carat convert again, which goes on from there"});
    }
    throw Error({"a part of a split model is missing",
                 paths.back(),
                 {},
                 fmt::format("{} parts beside {}", split.count, path),
                 {},
                 "download all parts into one folder"});
  }
  return paths;
}

void check_part(const std::string& path, const GgufSplit& part, int64_t number,
                const GgufSplit& first) {
  const auto require = [&](const char* key, int64_t expected, int64_t got) {
    if (expected == got) return;
    throw Error({"the parts of a split model do not belong together", path,
                 fmt::format("key \"{}\"", key), std::to_string(expected), std::to_string(got),
                 "the folder holds parts of different downloads"});
  };
  require("split.count", first.count, part.count);
  require("split.no", number, part.number);
  require("split.tensors.count", first.tensors, part.tensors);
}

}  // namespace carat::io
