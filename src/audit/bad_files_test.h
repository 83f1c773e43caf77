// Holds a table of bad files to its messages, and the seeds of a fuzz target to the table.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "io/testing/bad_files.h"

namespace carat::audit::testing {

inline std::span<const std::byte> bytes_of(const std::string& s) {
  return std::as_bytes(std::span(s));
}

// `read` takes the bytes of a file and throws Error for a bad one.
template <class Read>
void expect_bad_files(const std::vector<io::testing::BadFile>& files, Read read,
                      const std::string& corpus) {
  std::set<std::string> names;
  for (const io::testing::BadFile& f : files) {
    SCOPED_TRACE(f.name);
    EXPECT_TRUE(names.insert(f.name).second);
    std::string message;
    try {
      read(bytes_of(f.bytes));
    } catch (const Error& e) {
      message = e.what();
    }
    if (f.error.empty()) {
      EXPECT_EQ(message, "");
    } else {
      EXPECT_NE(message.find(f.error), std::string::npos) << "message: " << message;
    }
    const std::string path =
        std::string(CARAT_SOURCE_DIR) + "/fuzz/corpus/" + corpus + "/" + f.name;
    ASSERT_TRUE(std::filesystem::exists(path)) << "run the target write_corpus";
    EXPECT_EQ(read_text_file(path, 1 << 20), f.bytes);
  }
}

}  // namespace carat::audit::testing
