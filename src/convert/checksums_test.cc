#include "convert/checksums.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::write_text;

std::string hex(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

TEST(Checksums, OfSeveralFiles) {
  TemporaryFolder folder("digests");
  const std::string large(9 << 20, 'x');
  write_text(folder / "a", large);
  write_text(folder / "b", "");
  const auto files = digest_files({folder / "a", folder / "b"}, nullptr, {});
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].sha256, hex(large));
  EXPECT_EQ(files[0].bytes, 9 << 20);
  EXPECT_EQ(files[1].sha256, hex(""));
  EXPECT_THROW((void)digest_files({folder / "none"}, nullptr, {}), Error);
}

constexpr int64_t kMiB = int64_t{1} << 20;

// Zeros that take no room on the disk.
std::vector<std::string> files_of_zeros(const TemporaryFolder& folder, int n, int64_t bytes) {
  std::vector<std::string> paths;
  for (int i = 0; i < n; ++i) {
    paths.push_back(folder / std::to_string(i));
    write_text(paths.back(), "");
    fs::resize_file(paths.back(), static_cast<uintmax_t>(bytes));
  }
  return paths;
}

TEST(FileHasher, StaysNearTheOneWhoReads) {
  TemporaryFolder folder("follow");
  constexpr int64_t kWindow = 8 * kMiB, kPiece = 4 * kMiB;
  FileHasher hasher(files_of_zeros(folder, 3, 32 * kMiB), kWindow);
  for (int64_t bytes = 0; bytes <= 96 * kMiB; bytes += 3 * kMiB) {
    hasher.follow(bytes, nullptr);
    EXPECT_GE(hasher.done_bytes(), bytes - kWindow);
    EXPECT_LT(hasher.done_bytes(), bytes + kWindow + kPiece);
  }
  hasher.follow(1000 * kMiB, nullptr);  // a conversion that began anew
  const std::string expected = hex(std::string(32 * kMiB, '\0'));
  for (const FileDigest& f : hasher.finish(nullptr, {})) EXPECT_EQ(f.sha256, expected) << f.path;
}

TEST(FileHasher, AFileThatCannotBeReadHoldsNobodyUp) {
  TemporaryFolder folder("cut");
  const auto paths = files_of_zeros(folder, 3, 32 * kMiB);
  for (const std::string& cut : paths) {
    for (const std::string& path : paths) fs::resize_file(path, 32 * kMiB);
    FileHasher hasher(paths, kMiB);
    fs::resize_file(cut, 8 * kMiB);
    hasher.follow(96 * kMiB, nullptr);
    EXPECT_THROW((void)hasher.finish(nullptr, {}), Error);
  }
}

TEST(FileHasher, WhoeverWaitsCanBeInterrupted) {
  TemporaryFolder folder("interrupt");
  const std::atomic<bool> stop = true;
  FileHasher hasher(files_of_zeros(folder, 1, int64_t{64} << 30), kMiB);  // a minute's work
  EXPECT_THROW(hasher.follow(int64_t{64} << 30, &stop), Interrupted);
  EXPECT_THROW((void)hasher.finish(&stop, {}), Interrupted);
}

TEST(Checksums, TheHubsCacheNamesBlobsByTheirDigest) {
  TemporaryFolder folder("hub");
  fs::create_directories(folder / "blobs");
  fs::create_directories(folder / "snapshots");
  const std::string blob = folder / ("blobs/" + hex("abc")), link = folder / "snapshots/m.gguf";
  write_text(blob, "abc");
  fs::create_symlink(blob, link);
  EXPECT_EQ(recorded_sha256(link), hex("abc"));
  EXPECT_NO_THROW(check_recorded(digest_files({link}, nullptr, {})));
  write_text(blob, "abd");
  EXPECT_THROW(check_recorded(digest_files({link}, nullptr, {})), Error);
}

TEST(Checksums, ADownloadsRecordHoldsUntilTheFileIsChanged) {
  TemporaryFolder folder("download");
  write_text(folder / "m.safetensors", "abc");
  fs::create_directories(folder / ".cache/huggingface/download");
  const auto record = [&](const std::string& etag, int64_t after) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const int64_t s = std::chrono::duration_cast<std::chrono::seconds>(now).count() + after;
    write_text(folder / ".cache/huggingface/download/m.safetensors.metadata",
               "0123\n" + etag + "\n" + std::to_string(s) + ".5\n");
  };
  EXPECT_EQ(recorded_sha256(folder / "m.safetensors"), "");
  record(hex("abc"), 0);
  EXPECT_EQ(recorded_sha256(folder / "m.safetensors"), hex("abc"));
  record(hex("abc"), -100);
  EXPECT_EQ(recorded_sha256(folder / "m.safetensors"), "");
  record("0123456789abcdef0123456789abcdef01234567", 0);  // of git, for small files
  EXPECT_EQ(recorded_sha256(folder / "m.safetensors"), "");
}

TEST(Checksums, ListsAndPointers) {
  TemporaryFolder folder("lists");
  write_text(folder / "SHA256SUMS", hex("x") + "  other\n" + hex("abc") + " *dir/m.gguf\n");
  EXPECT_EQ(sha256_from_text_file(folder / "SHA256SUMS", "/somewhere/m.gguf"), hex("abc"));
  EXPECT_THROW((void)sha256_from_text_file(folder / "SHA256SUMS", "n.gguf"), Error);
  write_text(folder / "pointer",
             "version https://git-lfs.github.com/spec/v1\noid sha256:" + hex("abc") + "\nsize 3\n");
  EXPECT_EQ(sha256_from_text_file(folder / "pointer", "m.gguf"), hex("abc"));
}

TEST(Checksums, ADamagedDownloadGivesNoResult) {
  TemporaryFolder folder("damaged");
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tiny");
  write_hf(c);
  fs::create_directories(folder / "blobs");
  const std::string moved = folder / ("blobs/" + hex("something else"));
  fs::rename(folder / "hf/model.safetensors", moved);
  fs::create_symlink(moved, folder / "hf/model.safetensors");
  ConvertOptions o;
  o.source = folder / "hf";
  o.target = folder / "out.gguf";
  EXPECT_THROW((void)convert(o), Error);
  for (const std::string& name : folder.files()) EXPECT_FALSE(name.starts_with("out")) << name;
}

TEST(Checksums, OfAConversionAreThoseOfTheFiles) {
  TemporaryFolder folder("both");
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tiny");
  write_hf(c);
  ConvertOptions o;
  o.source = folder / "hf";
  for (const Format format : {Format::kGgufQ4_0, Format::kHfBf16}) {
    o.format = format;
    o.target = folder / name_of(format);
    o.max_shard_bytes = 1 << 20;
    const ConvertReport report = convert(o);
    ASSERT_EQ(report.source_files.size(), 1u);
    EXPECT_EQ(report.target_files.size() > 1, format == Format::kHfBf16);
    for (const auto& files : {report.source_files, report.target_files}) {
      for (const FileDigest& f : files) {
        const auto again = digest_files({f.path}, nullptr, {});
        EXPECT_EQ(f.sha256, again[0].sha256) << f.path;
        EXPECT_EQ(f.bytes, again[0].bytes) << f.path;
      }
    }
  }
}

}  // namespace
}  // namespace carat::convert
