#include "quantize/encoded_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace carat::quantize {

class EncodedStore::File final : public RandomAccessFile {
 public:
  explicit File(const std::string& target) : path_(target) {
    const std::string name = target + ".encoded-" + std::to_string(::getpid());
    fd_ = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd_ < 0) fail("cannot create a temporary file beside the target", errno);
    ::unlink(name.c_str());
  }
  ~File() override { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const override { return path_; }
  int64_t size() const override { return ::lseek(fd_, 0, SEEK_END); }
  void read(int64_t offset, std::span<std::byte> out) const override {
    for (size_t done = 0; done < out.size();) {
      const ssize_t n = ::pread(fd_, out.data() + done, out.size() - done,
                                static_cast<off_t>(offset + static_cast<int64_t>(done)));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("cannot read the temporary file beside the target", n < 0 ? errno : EIO);
      done += static_cast<size_t>(n);
    }
  }
  void write(int64_t offset, std::span<const std::byte> bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + static_cast<int64_t>(done)));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("cannot write the temporary file beside the target", errno);
      done += static_cast<size_t>(n);
    }
  }

 private:
  [[noreturn]] void fail(const char* what, int code) const {
    const bool full = code == ENOSPC || code == EDQUOT;
    throw Error({std::string(what) + ": " + std::strerror(code),
                 path_,
                 {},
                 {},
                 {},
                 full ? "free some disk space and run the command again" : ""});
  }

  std::string path_;
  int fd_ = -1;
};

EncodedStore::EncodedStore(const std::string& target) : file_(std::make_unique<File>(target)) {}
EncodedStore::~EncodedStore() = default;

void EncodedStore::put(const std::string& name, DType dtype, const Shape& shape, int64_t row_begin,
                       std::span<const std::byte> rows) {
  const std::optional<int64_t> bytes = byte_count(dtype, shape);
  CHECK(bytes.has_value());
  const int64_t row_size = row_bytes(dtype, shape.back());
  const int64_t n_rows = *bytes / row_size;
  Entry& e = entries_[name];
  if (e.set.empty() || e.dtype != dtype) {
    e = {dtype, row_size, end_, std::vector<bool>(static_cast<size_t>(n_rows)), 0};
    end_ += *bytes;
  }
  const auto size = static_cast<int64_t>(rows.size());
  CHECK(size % row_size == 0 && row_begin >= 0 && row_begin + size / row_size <= n_rows);
  CHECK(static_cast<int64_t>(e.set.size()) == n_rows);
  file_->write(e.offset + row_begin * row_size, rows);
  for (int64_t r = row_begin; r < row_begin + size / row_size; ++r) {
    e.n_set += !e.set[static_cast<size_t>(r)];
    e.set[static_cast<size_t>(r)] = true;
  }
}

void EncodedStore::read(const std::string& name, int64_t row_begin,
                        std::span<std::byte> rows) const {
  const auto found = entries_.find(name);
  CHECK(found != entries_.end());
  const Entry& e = found->second;
  const auto n = static_cast<int64_t>(rows.size()) / e.row_size;
  CHECK(n * e.row_size == static_cast<int64_t>(rows.size()) && row_begin >= 0 &&
        row_begin + n <= static_cast<int64_t>(e.set.size()));
  for (int64_t r = row_begin; r < row_begin + n; ++r) CHECK(e.set[static_cast<size_t>(r)]);
  file_->read(e.offset + row_begin * e.row_size, rows);
}

std::optional<convert::EncodedTensor> EncodedStore::find(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) return std::nullopt;
  const Entry& e = found->second;
  if (e.n_set != static_cast<int64_t>(e.set.size())) return std::nullopt;
  return convert::EncodedTensor{e.dtype, file_.get(), e.offset};
}

}  // namespace carat::quantize
