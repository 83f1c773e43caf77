#include "app/checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <span>
#include <string_view>
#include <system_error>
#include <vector>

#include "app/progress.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "convert/checksums.h"
#include "io/gguf_parse.h"
#include "io/gguf_reader.h"
#include "io/gguf_split.h"

namespace carat::app {
namespace {

namespace fs = std::filesystem;

// The number that five digits at `at` say; -1: there are others.
int64_t number_at(const std::string& text, size_t at) {
  int64_t value = 0;
  const char* const begin = text.data() + at;
  const auto [stop, code] = std::from_chars(begin, begin + 5, value);
  return code == std::errc() && stop == begin + 5 ? value : -1;
}

// What a name says, also that of a damaged file: NAME-00001-of-00003.gguf.
io::GgufSplit split_in(const std::string& path) {
  constexpr std::string_view kEnd = "-00001-of-00003.gguf";
  io::GgufSplit split;
  if (path.size() < kEnd.size()) return split;
  const size_t at = path.size() - kEnd.size();
  const int64_t number = number_at(path, at + 1), count = number_at(path, at + 10);
  if (count < 2 || count > io::kGgufMaxParts || number < 1 || number > count) return split;
  if (!path.ends_with(fmt::format("-{:05}-of-{:05}.gguf", number, count))) return split;
  return {number - 1, count, -1};
}

// True for a file that only has the name of a part.
bool is_whole(const std::string& path) {
  try {
    return io::open_gguf(path)->n_parts() == 1;
  } catch (const Error&) {
    return false;
  }
}

bool is_lfs_pointer(const std::string& list) {
  constexpr std::string_view kFirst = "version https://git-lfs";
  const auto file = open_file(list);
  std::string begin(kFirst.size(), '\0');
  if (file->size() < static_cast<int64_t>(begin.size())) return false;
  file->read(0, std::as_writable_bytes(std::span(begin)));
  return begin == kFirst;
}

std::vector<std::string> files_of(const std::string& path, bool one) {
  std::error_code code;
  if (!fs::is_directory(path, code)) return one ? std::vector<std::string>{path} : parts_of(path);
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(path, code)) {
    const fs::path extension = entry.path().extension();
    if (extension == ".safetensors" || extension == ".gguf") files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  if (files.empty())
    throw Error({"no .safetensors or .gguf file in the directory", path, "", "", "", ""});
  return files;
}

}  // namespace

std::vector<std::string> parts_of(const std::string& path) {
  const io::GgufSplit split = split_in(path);
  if (split.count == 1 || is_whole(path)) return {path};
  return io::part_paths(path, split);
}

bool print_checksums(const std::string& path, const std::string& list, bool json,
                     const std::atomic<bool>* stop) {
  Progress progress("MB");
  std::vector<convert::FileDigest> files = convert::digest_files(
      files_of(path, !list.empty() && is_lfs_pointer(list)), stop,
      [&](int64_t done, int64_t total) { progress.update(done / 1'000'000, total / 1'000'000); });
  progress.finish();
  for (convert::FileDigest& f : files) {
    if (!list.empty()) f.recorded = convert::sha256_from_text_file(list, f.path);
  }
  if (json) {
    fmt::print("{}\n", to_json_text(Json{{"files", convert::to_json(files)}}, 2));
  } else {
    for (const convert::FileDigest& f : files) fmt::print("{}  {}\n", f.sha256, f.path);
  }
  bool as_recorded = true;
  for (const convert::FileDigest& f : files) {
    if (!f.differs()) continue;
    const Error error({"the file is not what its checksum says", f.path, "", f.recorded, f.sha256,
                       "download it again"});
    fmt::print(stderr, "carat inspect: {}\n", error.what());
    as_recorded = false;
  }
  const bool known =
      std::all_of(files.begin(), files.end(), [](const auto& f) { return !f.recorded.empty(); });
  if (known && as_recorded) fmt::print(stderr, "all as recorded\n");
  return as_recorded;
}

}  // namespace carat::app
