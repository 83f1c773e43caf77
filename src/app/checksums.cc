#include "app/checksums.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "app/progress.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/checksums.h"

namespace carat::app {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_of(const std::string& path) {
  std::error_code code;
  if (!fs::is_directory(path, code)) return {path};
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

void print_checksums(const std::string& path, const std::string& list, bool json,
                     const std::atomic<bool>* stop) {
  Progress progress("MB");
  std::vector<convert::FileDigest> files = convert::digest_files(
      files_of(path), stop,
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
  for (const convert::FileDigest& f : files) {
    if (!f.differs()) continue;
    throw Error({"the file is not what its checksum says", f.path, "", f.recorded, f.sha256,
                 "download it again"});
  }
  const bool known =
      std::all_of(files.begin(), files.end(), [](const auto& f) { return !f.recorded.empty(); });
  if (known) fmt::print(stderr, "all as recorded\n");
}

}  // namespace carat::app
