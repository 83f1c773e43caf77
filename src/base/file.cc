#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/temporary_files.h"

namespace carat {
namespace {

[[noreturn]] void fail_errno(const std::string& path, const std::string& what, int code) {
  std::string hint;
  if (code == ENOSPC || code == EDQUOT) hint = "free some disk space and run the command again";
  throw Error({what + ": " + std::strerror(code), path, {}, {}, {}, hint});
}

// Opens a regular file for reading; returns the descriptor and its size.
std::pair<int, int64_t> open_regular(const std::string& path) {
  // Without O_NONBLOCK opening a pipe would wait for a writer before it can be refused.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail_errno(path, "cannot open the file", errno);
  struct stat st {};
  if (::fstat(fd, &st) != 0) {
    const int code = errno;
    ::close(fd);
    fail_errno(path, "cannot read the file's size", code);
  }
  if (!S_ISREG(st.st_mode)) {
    ::close(fd);
    throw Error({"not a regular file", path, {}, {}, S_ISDIR(st.st_mode) ? "a directory" : "", {}});
  }
  return {fd, st.st_size};
}

class PosixFile final : public RandomAccessFile {
 public:
  explicit PosixFile(const std::string& path) : path_(path) {
    std::tie(fd_, size_) = open_regular(path);
  }
  ~PosixFile() override { ::close(fd_); }

  const std::string& path() const override { return path_; }
  int64_t size() const override { return size_; }
  void read(int64_t offset, std::span<std::byte> out) const override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done,
                                static_cast<off_t>(offset + static_cast<int64_t>(done)));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail_errno(path_, "cannot read the file", errno);
      if (n == 0) {
        throw Error({"the file ends too early", path_, "byte " + std::to_string(offset),
                     std::to_string(out.size()) + " bytes", std::to_string(done) + " bytes",
                     "the file may be truncated"});
      }
      done += static_cast<size_t>(n);
    }
  }

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

class MemoryFile final : public RandomAccessFile {
 public:
  MemoryFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  const std::string& path() const override { return path_; }
  int64_t size() const override { return static_cast<int64_t>(bytes_.size()); }
  void read(int64_t offset, std::span<std::byte> out) const override {
    if (offset < 0 || offset > size() || static_cast<int64_t>(out.size()) > size() - offset) {
      throw Error({"the file ends too early",
                   path_,
                   "byte " + std::to_string(offset),
                   std::to_string(out.size()) + " bytes",
                   {},
                   "the file may be truncated"});
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }

 private:
  std::string path_;
  std::span<const std::byte> bytes_;
};

// Names of open temporary files, so that a signal handler can remove them.
constexpr int kMaxTemporaries = 32;
constexpr size_t kMaxPath = 4096;
struct TemporarySlot {
  std::atomic<int> used{0};  // 0 free, 1 being filled, 2 valid
  char path[kMaxPath];
};
TemporarySlot g_temporaries[kMaxTemporaries];

constexpr size_t kWriteBuffer = 1 << 20;

}  // namespace

void register_temporary_file(const std::string& path) {
  if (path.size() + 1 > kMaxPath) return;
  for (TemporarySlot& slot : g_temporaries) {
    int expected = 0;
    if (!slot.used.compare_exchange_strong(expected, 1)) continue;
    std::memcpy(slot.path, path.c_str(), path.size() + 1);
    slot.used.store(2);
    return;
  }
}

void unregister_temporary_file(const std::string& path) {
  for (TemporarySlot& slot : g_temporaries) {
    if (slot.used.load() == 2 && path == slot.path) slot.used.store(0);
  }
}

std::unique_ptr<RandomAccessFile> open_file(const std::string& path) {
  return std::make_unique<PosixFile>(path);
}

std::unique_ptr<RandomAccessFile> memory_file(std::string path, std::span<const std::byte> bytes) {
  return std::make_unique<MemoryFile>(std::move(path), bytes);
}

MappedFile::MappedFile(const std::string& path) {
  const auto [fd, size] = open_regular(path);
  size_ = size;
  if (size > 0) {
    void* p = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd, 0);
    const int code = errno;
    ::close(fd);
    if (p == MAP_FAILED) fail_errno(path, "cannot map the file", code);
    data_ = static_cast<const std::byte*>(p);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
}

void MappedFile::release(int64_t offset, int64_t length) const {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  const int64_t begin = (offset + page - 1) / page * page;
  const int64_t end = (offset + length >= size_) ? size_ : (offset + length) / page * page;
  if (data_ && begin < end) {
    ::madvise(const_cast<std::byte*>(data_) + begin, static_cast<size_t>(end - begin),
              MADV_DONTNEED);
  }
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
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
  temporary_ = path_ + ".partial-" + std::to_string(::getpid());
  fd_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail_errno(path_, "cannot create the file", errno);
  register_temporary_file(temporary_);
  buffer_ = std::make_unique<std::byte[]>(kWriteBuffer);
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
  unregister_temporary_file(temporary_);
}

namespace {
void write_all(int fd, int64_t offset, const std::byte* data, size_t n, const std::string& path) {
  while (n > 0) {
    const ssize_t w = ::pwrite(fd, data, n, static_cast<off_t>(offset));
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) fail_errno(path, "cannot write the file", errno);
    data += w;
    offset += w;
    n -= static_cast<size_t>(w);
  }
}
}  // namespace

void AtomicFile::drain() {
  write_all(fd_, position_ - static_cast<int64_t>(buffered_), buffer_.get(), buffered_, path_);
  buffered_ = 0;
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (buffered_ + bytes.size() > kWriteBuffer) drain();
  if (bytes.size() > kWriteBuffer) {
    write_all(fd_, position_, bytes.data(), bytes.size(), path_);
  } else if (!bytes.empty()) {
    std::memcpy(buffer_.get() + buffered_, bytes.data(), bytes.size());
    buffered_ += bytes.size();
  }
  position_ += static_cast<int64_t>(bytes.size());
}

void AtomicFile::write_at(int64_t offset, std::span<const std::byte> bytes) {
  CHECK(offset >= 0 && offset + static_cast<int64_t>(bytes.size()) <= position_);
  drain();
  write_all(fd_, offset, bytes.data(), bytes.size(), path_);
}

void AtomicFile::flush_window() {
  drain();
  // A failed write-back is reported once; commit's fsync would not see it again.
  if (::fdatasync(fd_) != 0) fail_errno(path_, "cannot flush the file to the disk", errno);
  ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
}

void AtomicFile::commit() {
  CHECK(fd_ >= 0);
  drain();
  if (::fsync(fd_) != 0) fail_errno(path_, "cannot flush the file to the disk", errno);
  if (::close(fd_) != 0) {
    const int code = errno;
    fd_ = -1;
    ::unlink(temporary_.c_str());
    unregister_temporary_file(temporary_);
    fail_errno(path_, "cannot close the file", code);
  }
  fd_ = -1;
  const int renamed = ::rename(temporary_.c_str(), path_.c_str());
  const int code = errno;
  if (renamed != 0) ::unlink(temporary_.c_str());
  unregister_temporary_file(temporary_);
  if (renamed != 0) fail_errno(path_, "cannot give the file its name", code);
  // The rename itself must reach the disk too; a folder that cannot be opened is no failure.
  const size_t slash = path_.find_last_of('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

void remove_temporary_files() noexcept {
  for (TemporarySlot& slot : g_temporaries) {
    if (slot.used.load() == 2) ::unlink(slot.path);
  }
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat sa {
  }, sb{};
  return ::stat(a.c_str(), &sa) == 0 && ::stat(b.c_str(), &sb) == 0 && sa.st_dev == sb.st_dev &&
         sa.st_ino == sb.st_ino;
}

std::string read_text_file(const std::string& path, int64_t limit) {
  const auto file = open_file(path);
  if (file->size() > limit) {
    throw Error({"the file is too large",
                 path,
                 {},
                 "at most " + std::to_string(limit) + " bytes",
                 std::to_string(file->size()) + " bytes",
                 {}});
  }
  std::string text(static_cast<size_t>(file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace carat
