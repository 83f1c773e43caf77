#include "convert/checksums.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPiece = int64_t{4} << 20;
constexpr size_t kMaxThreads = 4;
constexpr auto kPatience = std::chrono::milliseconds(50);
constexpr int64_t kMaxList = int64_t{1} << 20;

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

int64_t seconds_of_change(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? static_cast<int64_t>(st.st_mtime) : 0;
}

// Lines: commit, etag, time of the download in seconds.
std::string from_download_record(const fs::path& path) {
  const fs::path record = path.parent_path() / ".cache" / "huggingface" / "download" /
                          (path.filename().string() + ".metadata");
  std::error_code ignored;
  if (!fs::is_regular_file(record, ignored)) return {};
  std::string commit, etag;
  double time = 0;
  try {
    std::istringstream lines(read_text_file(record.string(), kMaxList));
    lines >> commit >> etag >> time;
  } catch (const Error&) {
    return {};
  }
  const bool changed_since = static_cast<double>(seconds_of_change(path.string())) > time + 1;
  return is_sha256_hex(etag) && !changed_since ? lower(etag) : std::string();
}

}  // namespace

Json to_json(const std::vector<FileDigest>& files) {
  Json list = Json::array();
  for (const FileDigest& f : files) {
    Json j{{"path", f.path}, {"bytes", f.bytes}, {"sha256", f.sha256}};
    if (!f.recorded.empty()) j["as_recorded"] = !f.differs();
    list.push_back(std::move(j));
  }
  return list;
}

std::vector<FileDigest> digests_of(const std::vector<io::WrittenFile>& files) {
  std::vector<FileDigest> digests;
  for (const io::WrittenFile& f : files) digests.push_back({f.path, f.bytes, f.sha256, {}});
  return digests;
}

std::string recorded_sha256(const std::string& path) {
  std::error_code code;
  if (fs::is_symlink(path, code)) {
    const fs::path blob = fs::canonical(path, code);
    const bool in_cache = !code && blob.parent_path().filename() == "blobs";
    if (in_cache && is_sha256_hex(blob.filename().string())) return lower(blob.filename());
  }
  return from_download_record(path);
}

std::string sha256_from_text_file(const std::string& list, const std::string& path) {
  const std::string name = fs::path(path).filename();
  std::istringstream lines(read_text_file(list, kMaxList));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("oid sha256:") && is_sha256_hex(line.substr(11, 64))) {
      return lower(line.substr(11, 64));
    }
    if (line.size() < 66 || !is_sha256_hex(line.substr(0, 64)) || line[64] != ' ') continue;
    if (fs::path(line.substr(66)).filename() == name) return lower(line.substr(0, 64));
  }
  throw Error({"no checksum of this file in the list", list, {}, name, {}, {}});
}

void check_recorded(const std::vector<FileDigest>& files) {
  for (const FileDigest& f : files) {
    if (!f.differs()) continue;
    throw Error({"the file is not what the Hub recorded when it was downloaded",
                 f.path,
                 {},
                 "SHA-256 " + f.recorded,
                 f.sha256,
                 "download it again"});
  }
}

FileHasher::FileHasher(std::vector<std::string> paths, int64_t window) : window_(window) {
  for (std::string& path : paths) {
    FileDigest f;
    f.recorded = recorded_sha256(path);
    f.bytes = open_file(path)->size();
    f.path = std::move(path);
    begins_.push_back(total_);
    total_ += f.bytes;
    files_.push_back(std::move(f));
  }
  const size_t processors = std::max(1u, std::thread::hardware_concurrency());
  at_work_ = std::min({files_.size(), processors, kMaxThreads});
  for (size_t i = 0, n = at_work_; i < n; ++i) threads_.emplace_back([this] { run(); });
}

FileHasher::~FileHasher() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void FileHasher::allow(int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    allowed_ = std::max(allowed_, std::min(bytes, total_));
  }
  changed_.notify_all();
}

void FileHasher::follow(int64_t bytes, const std::atomic<bool>* stop) {
  allow(bytes);
  std::unique_lock lock(mutex_);
  const auto is_near = [&] { return at_work_ == 0 || done_ >= allowed_ - window_; };
  while (!changed_.wait_for(lock, kPatience, is_near)) {
    if (stop != nullptr && stop->load()) throw Interrupted();
  }
}

void FileHasher::hash(size_t i, std::vector<std::byte>& buffer) {
  FileDigest& f = files_[i];
  const auto file = open_file(f.path);
  Sha256 sum;
  while (sum.bytes() < f.bytes) {
    {
      std::unique_lock lock(mutex_);
      const int64_t at = begins_[i] + sum.bytes();
      changed_.wait(lock, [&] { return cancelled_ || at < allowed_ + window_; });
      if (cancelled_) return;
    }
    const int64_t n = std::min(kPiece, f.bytes - sum.bytes());
    const std::span piece(buffer.data(), static_cast<size_t>(n));
    file->read(sum.bytes(), piece);
    sum.update(piece);
    {
      const std::lock_guard lock(mutex_);
      done_ += n;
    }
    changed_.notify_all();
  }
  f.sha256 = to_hex(sum.digest());
}

void FileHasher::run() {
  std::exception_ptr failure;
  try {
    std::vector<std::byte> buffer(static_cast<size_t>(kPiece));
    while (true) {
      size_t i = 0;
      {
        const std::lock_guard lock(mutex_);
        if (cancelled_ || next_file_ == files_.size()) break;
        i = next_file_++;
      }
      hash(i, buffer);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  --at_work_;
  if (failure) {
    if (!failure_) failure_ = failure;
    cancelled_ = true;
  }
  changed_.notify_all();
}

std::vector<FileDigest> FileHasher::finish(
    const std::atomic<bool>* stop,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  allow(total_);
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, kPatience, [&] { return at_work_ == 0; })) {
    if (stop != nullptr && stop->load()) throw Interrupted();
    if (progress) progress(done_, total_);
  }
  if (failure_) std::rethrow_exception(failure_);
  return files_;
}

std::vector<FileDigest> digest_files(
    const std::vector<std::string>& paths, const std::atomic<bool>* stop,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  return FileHasher(paths).finish(stop, progress);
}

}  // namespace carat::convert
