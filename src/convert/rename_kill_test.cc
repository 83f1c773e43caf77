// A conversion whose process ends between two renames.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/sha256.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"

namespace {

std::atomic<int> g_renames_left{INT_MAX};

}  // namespace

// Every rename of this process comes here, those of the library's code too.
extern "C" int rename(const char* from, const char* to) noexcept {
  if (g_renames_left.fetch_sub(1) == 0) ::kill(::getpid(), SIGKILL);
  return ::renameat(AT_FDCWD, from, AT_FDCWD, to);
}

namespace carat::convert {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

// Whether the conversion came to its end, in a process of its own that is killed when it wants to
// rename for the time `renames` + 1.
bool ends_in_time(const ConvertOptions& options, int renames) {
  const pid_t child = ::fork();
  if (child == 0) {
    g_renames_left = renames;
    try {
      (void)convert(options);
    } catch (const std::exception& e) {
      ::fprintf(stderr, "%s\n", e.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    return false;
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
  return true;
}

// Digest of the names, types and bytes of a checkpoint's tensors; empty if readers refuse it.
std::string tensors_in(const std::string& path) try {
  const io::Checkpoint c = io::open_checkpoint(path);
  Sha256 sum;
  for (const io::TensorEntry& e : c.tensors->entries()) {
    std::vector<std::byte> bytes(static_cast<size_t>(e.bytes));
    c.tensors->file_of(e).read(e.offset, bytes);
    const std::string head = e.name + " " + name_of(e.dtype) + "\n";
    sum.update(std::as_bytes(std::span(head)));
    sum.update(bytes);
  }
  return to_hex(sum.digest());
} catch (const Error&) {
  return {};
}

testing::HfCheckpoint source_of_seed(const std::string& folder, uint64_t seed) {
  testing::HfCheckpoint c;
  c.folder = folder;
  c.config = model::config_of_size("tinykv");
  c.seed = seed;
  write_hf(c);
  return c;
}

std::vector<std::string> temporary_files(const TemporaryFolder& folder) {
  std::vector<std::string> names;
  for (const std::string& name : folder.files()) {
    if (name.find(".part") != std::string::npos) names.push_back(name);
  }
  return names;
}

class KilledBetweenNames : public ::testing::TestWithParam<Format> {};

// Old and new files never look like one checkpoint, and the same command ends with the same result,
// wherever it was killed.
TEST_P(KilledBetweenNames, LeavesOneCheckpointOrNoneAndGoesOn) {
  TemporaryFolder folder(std::string("killed_") + name_of(GetParam()));
  source_of_seed(folder / "old_hf", 1);
  source_of_seed(folder / "new_hf", 2);
  const bool is_folder = GetParam() == Format::kHfBf16;
  ConvertOptions options;
  options.format = GetParam();
  options.max_shard_bytes = options.max_file_bytes = 1 << 19;
  const auto convert_to = [&](const std::string& source, const std::string& target) {
    options.source = source;
    options.target = target;
    const ConvertReport report = convert(options);
    EXPECT_GT(report.target_files.size(), 2u);
    return is_folder ? target : report.target_files.front().path;
  };
  const std::string old_path = convert_to(folder / "old_hf", folder / "old");
  const std::string new_path = convert_to(folder / "new_hf", folder / "new");
  const std::string old_tensors = tensors_in(old_path), new_tensors = tensors_in(new_path);
  ASSERT_FALSE(old_tensors.empty() || new_tensors.empty());
  ASSERT_NE(old_tensors, new_tensors);

  int refused = 0;
  for (int renames = 0;; ++renames) {
    ASSERT_LT(renames, 100);
    const std::string out = folder / ("out" + std::to_string(renames));
    const std::string path = convert_to(folder / "old_hf", out);
    options.source = folder / "new_hf";
    options.overwrite = true;
    const bool ended = ends_in_time(options, renames);
    options.overwrite = false;
    const std::string left = tensors_in(path);
    if (ended) {
      EXPECT_EQ(left, new_tensors);
      break;
    }
    EXPECT_EQ(left, "") << renames;
    ++refused;
    bool goes_on = false;
    options.note = [&](const std::string& text) {
      goes_on = goes_on || text.find("going on behind") != std::string::npos;
    };
    (void)convert(options);
    options.note = nullptr;
    EXPECT_TRUE(goes_on) << renames;
    EXPECT_EQ(tensors_in(path), new_tensors) << renames;
    EXPECT_TRUE(temporary_files(folder).empty()) << temporary_files(folder).front();
    fs::remove_all(is_folder ? out : path);
  }
  EXPECT_GT(refused, 2);
}

INSTANTIATE_TEST_SUITE_P(Formats, KilledBetweenNames,
                         ::testing::Values(Format::kHfBf16, Format::kGgufBf16),
                         [](const auto& p) { return p.param == Format::kHfBf16 ? "hf" : "gguf"; });

}  // namespace
}  // namespace carat::convert
