// Any bytes as the parts of a split GGUF model: refused with an Error, or every tensor lies in its
// file. The first byte is the number of parts, 1 to 4; the rest is cut into as many equal pieces.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/gguf_reader.h"

namespace {

namespace fs = std::filesystem;

void read_all(const std::string& path) try {
  const carat::io::GgufFile file(path);
  CHECK(file.n_parts() >= 1 && file.n_parts() <= 4);
  CHECK(static_cast<int64_t>(file.paths().size()) == file.n_parts());
  for (const carat::io::TensorEntry& e : file.entries()) {
    CHECK(file.find(e.name) == &e);
    CHECK(e.offset >= 0 && e.bytes >= 0 && e.offset + e.bytes <= file.file_of(e).size());
  }
} catch (const carat::Error&) {
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t n = 1 + data[0] % 4;
  const size_t piece = (size - 1) / n;
  const fs::path folder =
      fs::temp_directory_path() / fmt::format("carat-split-fuzz-{}", ::getpid());
  fs::create_directories(folder);
  std::vector<std::string> paths;
  for (size_t i = 0; i < n; ++i) {
    paths.push_back(folder / fmt::format("m-{:05}-of-{:05}.gguf", i + 1, n));
    std::ofstream(paths.back(), std::ios::binary)
        .write(reinterpret_cast<const char*>(data) + 1 + i * piece,
               static_cast<std::streamsize>(piece));
  }
  for (const std::string& path : paths) read_all(path);
  fs::remove_all(folder);
  return 0;
}
