#include "io/part_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/temporary_files.h"

namespace carat::io {
namespace {

constexpr int64_t kWindow = int64_t{64} << 20;
constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
constexpr int kTries = 1000;
constexpr int64_t kRead = int64_t{4} << 20;

// Bytes read at `offset`, fewer only at the end of the file; -1 on an error.
int64_t read_at(int fd, int64_t offset, std::byte* out, int64_t n) {
  int64_t done = 0;
  while (done < n) {
    const ssize_t r =
        ::pread(fd, out + done, static_cast<size_t>(n - done), static_cast<off_t>(offset + done));
    if (r < 0 && errno == EINTR) continue;
    if (r < 0) return -1;
    if (r == 0) break;
    done += r;
  }
  return done;
}

[[noreturn]] void fail(const char* what, int code, const std::string& path) {
  std::string hint;
  if (code == ENOSPC || code == EDQUOT) hint = "free some disk space and run the command again";
  throw Error({std::string(what) + ": " + std::strerror(code), path, {}, {}, {}, hint});
}

}  // namespace

int open_locked(const std::string& path, const std::string& about) {
  for (int tries = 1;; ++tries) {
    const int fd = ::open(path.c_str(), kFlags, 0644);
    if (fd < 0) fail("cannot create the file", errno, about);
    const bool locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    const bool is_busy = !locked && errno == EWOULDBLOCK;
    // Between open and flock another process may have given the file its final name or removed it.
    struct stat own = {}, named = {};
    const bool is_same = ::fstat(fd, &own) == 0 && ::lstat(path.c_str(), &named) == 0 &&
                         own.st_dev == named.st_dev && own.st_ino == named.st_ino;
    if (is_same && !is_busy) return fd;
    ::close(fd);
    if (is_busy || tries == kTries) {
      throw Error({"another process is writing this file", about, {}, {}, path, "wait for it"});
    }
  }
}

void remove_part_file(const std::string& path) {
  const std::string part = path + ".part";
  struct stat st = {};
  if (::lstat(part.c_str(), &st) != 0 || !S_ISREG(st.st_mode)) return;
  const int fd = open_locked(part, path);
  ::unlink(part.c_str());
  ::close(fd);
}

void flush_folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return;
  ::fsync(dir);
  ::close(dir);
}

PartFile::PartFile(std::string path, bool resumable)
    : path_(std::move(path)), resumable_(resumable) {
  struct stat st {};
  // Renaming over a device or a pipe would replace it for everybody.
  if (::stat(path_.c_str(), &st) == 0 && !S_ISREG(st.st_mode)) {
    throw Error({"cannot write here",
                 path_,
                 {},
                 "the name of a regular file",
                 S_ISDIR(st.st_mode) ? "a directory" : "a device or a pipe",
                 {}});
  }
  part_ = path_ + (resumable_ ? ".part" : ".partial-" + std::to_string(::getpid()));
  if (resumable_) {
    fd_ = open_locked(part_, path_);
    if (::fstat(fd_, &st) == 0 && S_ISREG(st.st_mode)) reuse_ = st.st_size;
    return;
  }
  fd_ = ::open(part_.c_str(), kFlags | O_TRUNC, 0644);
  if (fd_ < 0) fail("cannot create the file", errno);
  register_temporary_file(part_);
}

PartFile::~PartFile() {
  if (fd_ < 0) return;
  if (!keep_) ::unlink(part_.c_str());
  ::close(fd_);
  if (!resumable_) unregister_temporary_file(part_);
}

void PartFile::fail(const char* what, int code) const { carat::io::fail(what, code, path_); }

bool PartFile::matches(std::span<const std::byte> bytes) {
  const auto n = static_cast<int64_t>(bytes.size());
  if (position_ + n > reuse_) return false;
  if (!buffer_) buffer_ = std::make_unique_for_overwrite<std::byte[]>(kRead);
  for (int64_t at = 0; at < n; at += kRead) {
    const int64_t piece = std::min(kRead, n - at);
    if (read_at(fd_, position_ + at, buffer_.get(), piece) != piece) return false;
    if (std::memcmp(buffer_.get(), bytes.data() + at, static_cast<size_t>(piece)) != 0) {
      return false;
    }
  }
  return true;
}

void PartFile::write(std::span<const std::byte> bytes) {
  const auto n = static_cast<int64_t>(bytes.size());
  sum_.update(bytes);
  if (reuse_ > 0 && matches(bytes)) {
    position_ += n;
    return;
  }
  end_reuse();
  for (int64_t at = 0; at < n;) {
    const ssize_t w = ::pwrite(fd_, bytes.data() + at, static_cast<size_t>(n - at),
                               static_cast<off_t>(position_ + at));
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) fail("cannot write the file", errno);
    at += w;
  }
  position_ += n;
  if (position_ - flushed_ >= kWindow) flush_window();
}

bool PartFile::take_over(int64_t end, const Sha256::Digest& expected) {
  CHECK(end >= position_);
  if (end > reuse_) return false;
  if (!buffer_) buffer_ = std::make_unique_for_overwrite<std::byte[]>(kRead);
  Sha256 sum = sum_;
  for (int64_t at = position_; at < end;) {
    const int64_t piece = std::min(kRead, end - at);
    if (read_at(fd_, at, buffer_.get(), piece) != piece) return false;
    sum.update({buffer_.get(), static_cast<size_t>(piece)});
    at += piece;
  }
  if (sum.digest() != expected) return false;
  sum_ = sum;
  position_ = end;
  return true;
}

void PartFile::end_reuse() {
  if (reuse_ == 0) return;
  reuse_ = 0;
  flushed_ = position_;
  buffer_.reset();
  if (::ftruncate(fd_, static_cast<off_t>(position_)) != 0) fail("cannot shorten the file", errno);
}

// Starts writing the newest window back and waits for the one before it, which the page cache then
// no longer needs.
void PartFile::flush_window() {
  const auto sync = [&](int64_t begin, int64_t end, unsigned flags) {
    if (::sync_file_range(fd_, begin, end - begin, flags) != 0 && errno != ENOSYS) {
      fail("cannot flush the file to the disk", errno);
    }
  };
  sync(flushed_, position_, SYNC_FILE_RANGE_WRITE);
  const int64_t before = std::max<int64_t>(0, flushed_ - kWindow);
  sync(before, flushed_,
       SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  ::posix_fadvise(fd_, before, flushed_ - before, POSIX_FADV_DONTNEED);
  flushed_ = position_;
}

void PartFile::flush() {
  CHECK(fd_ >= 0);
  end_reuse();
  if (::fsync(fd_) != 0) fail("cannot flush the file to the disk", errno);
}

void PartFile::commit() {
  flush();
  if (::rename(part_.c_str(), path_.c_str()) != 0) {
    fail("cannot give the file its name", errno);
  }
  if (!resumable_) unregister_temporary_file(part_);
  const int closed = ::close(std::exchange(fd_, -1));
  if (closed != 0) fail("cannot close the file", errno);
  flush_folder_of(path_);
}

}  // namespace carat::io
