#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/error.h"

namespace carat {
namespace {

// One for the whole process, removed at its end; a folder of its own below it at each call.
std::string temporary_folder() {
  struct Root {
    std::string path = testing::TempDir() + "carat_file_XXXXXX";
    int n = 0;
    Root() { CHECK(::mkdtemp(path.data()) != nullptr); }
    ~Root() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  };
  static Root root;
  const std::string folder = root.path + "/" + std::to_string(root.n++);
  std::filesystem::create_directory(folder);
  return folder;
}

bool exists(const std::string& p) {
  struct stat st {};
  return ::stat(p.c_str(), &st) == 0;
}

TEST(AtomicFile, AppearsOnlyOnCommit) {
  const std::string path = temporary_folder() + "/f";
  {
    AtomicFile f(path);
    f.write(std::string("half"));
  }
  EXPECT_FALSE(exists(path));
  {
    AtomicFile f(path);
    f.write(std::string(3 << 20, 'a'));
    f.write(std::string("end"));
    const char b = 'b';
    f.write_at(1, std::as_bytes(std::span(&b, 1)));
    EXPECT_FALSE(exists(path));
    f.commit();
  }
  const std::string text = read_text_file(path, 1 << 30);
  EXPECT_EQ(text.size(), (3u << 20) + 3);
  EXPECT_EQ(text.substr(0, 3), "aba");
  EXPECT_EQ(text.substr(text.size() - 3), "end");
}

TEST(AtomicFile, KeepsTheOldFileWhenAbandoned) {
  const std::string path = temporary_folder() + "/f";
  {
    AtomicFile f(path);
    f.write(std::string("old"));
    f.commit();
  }
  {
    AtomicFile f(path);
    f.write(std::string("new"));
  }
  EXPECT_EQ(read_text_file(path, 100), "old");
}

TEST(AtomicFile, RemovedBySignalHandlerHelper) {
  const std::string path = temporary_folder() + "/f";
  AtomicFile f(path);
  f.write(std::string("x"));
  const std::string temporary = path + ".partial-" + std::to_string(::getpid());
  EXPECT_TRUE(exists(temporary));
  remove_temporary_files();
  EXPECT_FALSE(exists(temporary));
}

TEST(AtomicFile, RefusesWhatIsNoRegularFile) {
  EXPECT_THROW(AtomicFile{temporary_folder()}, Error);
  const std::string pipe = temporary_folder() + "/pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(AtomicFile{pipe}, Error);
  EXPECT_THROW(open_file(pipe), Error);  // and does not wait for a writer
}

TEST(File, KnowsTheSameFileByAnotherName) {
  const std::string folder = temporary_folder();
  EXPECT_TRUE(same_file(folder, folder + "/."));
  EXPECT_FALSE(same_file(folder, folder + "/absent"));
}

TEST(File, SaysWhatIsWrong) {
  EXPECT_THROW(open_file("/nonexistent/x"), Error);
  EXPECT_THROW(open_file("/"), Error);
  EXPECT_THROW(MappedFile("/nonexistent/x"), Error);
  const std::byte bytes[4] = {};
  const auto f = memory_file("m", bytes);
  std::byte out[4];
  f->read(0, out);
  EXPECT_THROW(f->read(1, out), Error);
  EXPECT_THROW(f->read(-1, out), Error);
  EXPECT_THROW(f->read(INT64_MAX, out), Error);
}

}  // namespace
}  // namespace carat
