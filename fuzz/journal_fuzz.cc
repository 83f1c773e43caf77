// Any bytes as the journal of a conversion, and as what follows a sound first line: lines that make
// no sense end it, and what was read is written and read again as the same.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "convert/journal.h"

namespace {

namespace fs = std::filesystem;
using carat::convert::Journal;

const std::string& folder() {
  struct Folder {
    std::string path =
        fs::temp_directory_path() / ("carat-journal-fuzz-" + std::to_string(::getpid()));
    Folder() { fs::create_directories(path); }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder folder;
  return folder.path;
}

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

std::string text_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void read_both(const std::string& target, const std::string& text) {
  const std::string path = carat::convert::journal_path(target, false);
  put(path, text);
  for (const std::string& file : carat::convert::journal_files(path)) {
    CHECK(fs::path(file).parent_path() == folder());
  }
  std::string written;
  size_t n = 0;
  {
    Journal journal(path, "plan", {target});
    n = journal.earlier().size();
    for (const Journal::Entry& e : journal.earlier()) CHECK(e.mark.bytes >= 0);
    journal.begin(n);
    journal.keep();
    written = text_of(path);
  }
  Journal again(path, "plan", {target});
  CHECK(again.earlier().size() == n && !again.was_other_plan());
  again.begin(n);
  CHECK(text_of(path) == written);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string target = folder() + "/out.gguf";
  const std::string path = carat::convert::journal_path(target, false);
  fs::remove(path);
  read_both(target, text);
  put(path, "");
  std::string head;
  {
    Journal fresh(path, "plan", {target});
    fresh.begin(0);
    head = text_of(path);
  }
  read_both(target, head + text);
  fs::remove_all(folder());
  fs::create_directories(folder());
  return 0;
}
