#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "io/gguf_writer.h"
#include "io/part_file.h"
#include "io/safetensors_writer.h"

namespace carat::io {
namespace {

namespace fs = std::filesystem;

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Tensors of bytes that tell where they belong; the second is larger than a buffer of the writer.
class Resume : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("carat-resume-" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directory(folder_);
    path_ = (folder_ / "t.gguf").string();
    fields_.add_string("general.name", "x");
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::vector<TensorSpec> specs() {
    return {{"a", DType::kF32, {3}},
            {"b", DType::kF32, {3000, 1001}},
            {"c", DType::kF32, {7}},
            {"d", DType::kF32, {1000}}};
  }
  static std::vector<std::byte> contents(const TensorSpec& spec) {
    std::vector<std::byte> out(static_cast<size_t>(*byte_count(spec.dtype, spec.shape)));
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::byte>(i * 31 + static_cast<size_t>(spec.name[0]));
    }
    return out;
  }

  std::unique_ptr<TensorWriter> writer(bool resumable) const {
    return std::make_unique<GgufWriter>(path_, fields_, specs(), WriteOptions{resumable});
  }
  // Writes tensors [from, to) and remembers their marks.
  void write(TensorWriter& w, size_t from, size_t to) {
    const std::vector<TensorSpec> all = w.specs();
    for (size_t i = from; i < to; ++i) {
      w.write(all[i].name, contents(all[i]));
      w.mark([this](const FileMark& m) { marks_.push_back(m); });
    }
  }
  // What an interrupted run leaves: tensors [0, n) and a part of the next.
  void leave(size_t n) {
    const auto w = writer(true);
    write(*w, 0, n);
    if (n < specs().size()) {
      w->begin(specs()[n].name);
      const std::vector<std::byte> bytes = contents(specs()[n]);
      w->append(std::span(bytes).first(5));
    }
    w->keep();
  }
  std::string whole() {
    const auto w = writer(false);
    write(*w, 0, specs().size());
    w->finish();
    marks_.clear();
    const std::string bytes = bytes_of(path_);
    fs::remove(path_);
    return bytes;
  }

  fs::path folder_;
  std::string path_;
  GgufFields fields_;
  std::vector<FileMark> marks_;
};

TEST_F(Resume, GoesOnBehindEveryTensor) {
  const std::string expected = whole();
  for (size_t n = 0; n <= 4; ++n) {
    marks_.clear();
    leave(n);
    EXPECT_FALSE(fs::exists(path_));
    ASSERT_EQ(marks_.size(), n);
    const auto w = writer(true);
    EXPECT_EQ(w->take_over(std::vector(marks_)), n);
    write(*w, n, 4);
    w->finish();
    EXPECT_EQ(bytes_of(path_), expected) << n;
    ASSERT_EQ(w->files().size(), 1u);
    EXPECT_EQ(w->files()[0].sha256, sha256_hex(std::as_bytes(std::span(expected))));
    EXPECT_FALSE(fs::exists(path_ + ".part"));
    fs::remove(path_);
  }
}

TEST_F(Resume, TakesOnlyWhatIsStillThere) {
  const std::string expected = whole();
  for (const char* damage : {"flip", "cut", "head"}) {
    marks_.clear();
    leave(3);
    const std::string part = path_ + ".part";
    size_t sound = 1;  // tensors before the damage
    if (damage == std::string("cut")) {
      fs::resize_file(part, fs::file_size(part) / 2);
    } else {
      std::fstream file(part, std::ios::binary | std::ios::in | std::ios::out);
      const bool head = damage == std::string("head");
      if (head) sound = 0;
      file.seekp(head ? 20 : marks_[1].bytes - 100);
      file.put('\x55');
    }
    const auto w = writer(true);
    EXPECT_EQ(w->take_over(std::vector(marks_)), sound) << damage;
    write(*w, sound, 4);
    w->finish();
    EXPECT_EQ(bytes_of(path_), expected) << damage;
    fs::remove(path_);
  }
}

TEST_F(Resume, ShardsGoOnToo) {
  const std::string folder = (folder_ / "hf").string();
  fs::create_directory(folder);
  const auto make = [&] {
    return write_safetensors_directory(folder, specs(), 1 << 20, {{"format", "pt"}},
                                       WriteOptions{true});
  };
  {
    const auto w = make();
    write(*w, 0, 3);
    w->keep();
  }
  EXPECT_TRUE(fs::exists(folder + "/model-00001-of-00003.safetensors.part"));
  const auto w = make();
  EXPECT_EQ(w->take_over(std::vector(marks_)), 3u);
  write(*w, 3, 4);
  w->finish();
  ASSERT_EQ(w->files().size(), 3u);
  for (const WrittenFile& f : w->files()) {
    const std::string bytes = bytes_of(f.path);
    EXPECT_EQ(f.bytes, static_cast<int64_t>(bytes.size()));
    EXPECT_EQ(f.sha256, sha256_hex(std::as_bytes(std::span(bytes))));
  }
}

TEST_F(Resume, DestroyedWithoutKeepNothingStays) {
  {
    const auto w = writer(true);
    write(*w, 0, 2);
  }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Resume, TwoAtATimeAreRefused) {
  const auto w = writer(true);
  EXPECT_THROW(writer(true), Error);
  EXPECT_TRUE(fs::exists(path_ + ".part"));
}

// Whoever has the lock has the file of that name, however often others remove theirs meanwhile.
TEST_F(Resume, TheLockedFileIsTheNamedOne) {
  std::atomic<int> nameless{0}, locked{0};
  const auto compete = [&] {
    for (int i = 0; i < 5000; ++i) {
      try {
        const PartFile file(path_, true);
        ++locked;
        if (!fs::exists(path_ + ".part")) ++nameless;
      } catch (const Error&) {
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back(compete);
  }
  EXPECT_GT(locked, 0);
  EXPECT_EQ(nameless, 0);
}

TEST(WriteQueue, AFailureReachesTheCaller) {
  WriteQueue queue;
  queue.add([] { throw Error("no room"); });
  EXPECT_THROW(
      {
        queue.add([] {});
        queue.drain();
      },
      Error);
}

}  // namespace
}  // namespace carat::io
