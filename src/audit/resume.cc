#include "audit/resume.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/sha256.h"

namespace carat::audit {
namespace {

constexpr const char* kFormat = "carat audit state 1";
constexpr size_t kMaxKey = size_t{1} << 20;
constexpr int64_t kMaxFile = int64_t{16} << 30;

struct RecordHead {
  std::array<char, 16> what{};
  int64_t index = 0;
  int64_t length = 0;
  std::array<uint8_t, 8> sum{};
};
static_assert(sizeof(RecordHead) == 40);

std::array<uint8_t, 8> sum_of(const RecordHead& head, std::span<const std::byte> bytes) {
  RecordHead h = head;
  h.sum = {};
  Sha256 sha;
  sha.update(std::as_bytes(std::span(&h, 1)));
  sha.update(bytes);
  const Sha256::Digest digest = sha.digest();
  std::array<uint8_t, 8> sum;
  std::copy_n(digest.begin(), sum.size(), sum.begin());
  return sum;
}

[[noreturn]] void fail(const char* what, const std::string& path) {
  throw Error({what, path, {}, {}, std::strerror(errno), {}});
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("cannot write", path);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

std::vector<std::byte> read_all(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail("cannot read", path);
  if (!S_ISREG(info.st_mode) || info.st_size > kMaxFile) {
    throw Error({"not the state of an audit", path, {}, {}, {}, {}});
  }
  std::vector<std::byte> bytes(static_cast<size_t>(info.st_size));
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = ::pread(fd, bytes.data() + at, bytes.size() - at, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot read", path);
    if (n == 0) bytes.resize(at);
    at += static_cast<size_t>(n);
  }
  return bytes;
}

// The first member in which two keys differ, as a path.
std::string difference(const Json& a, const Json& b, std::string path, std::string* had,
                       std::string* has) {
  if (a.type() == b.type() && a.is_structured() && a.size() == b.size()) {
    auto x = a.items().begin();
    auto y = b.items().begin();
    for (; x != a.items().end(); ++x, ++y) {
      if (x.key() == y.key() && x.value() == y.value()) continue;
      return difference(x.value(), y.value(), path.empty() ? x.key() : path + "." + x.key(), had,
                        has);
    }
  }
  *had = to_json_text(a);
  *has = to_json_text(b);
  return path;
}

void check_key(const std::string& path, std::string_view line, const Json& key) {
  Json found;
  try {
    found = parse_json(line);
  } catch (const Error&) {
    found = nullptr;
  }
  if (!found.is_object() || get_string(found, "format", "") != kFormat) {
    throw Error({"not the state of an audit", path, {}, {}, {}, "name another file for --state"});
  }
  if (found == key) return;
  std::string had, has;
  const std::string place = difference(found, key, {}, &had, &has);
  throw Error({"the state is of another audit", path, place, had, has,
               "repeat the command that it was begun with, or name another file for --state"});
}

}  // namespace

AuditState::AuditState(std::string path, const Json& key) : path_(std::move(path)) {
  Json full;
  full["format"] = kFormat;
  full.update(key);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
  if (fd_ < 0) fail("cannot open", path_);
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      throw Error({"another audit is using this state", path_, {}, {}, {}, {}});
    }
    const std::vector<std::byte> bytes = read_all(fd_, path_);
    const auto newline = std::find(bytes.begin(), bytes.end(), std::byte{'\n'});
    const std::string own = to_json_text(full) + "\n";
    if (newline == bytes.end()) {
      // Killed while the key was being written, or new; anything else is not ours to overwrite.
      const std::string_view begun(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      if (!std::string_view(own).starts_with(begun)) {
        throw Error(
            {"not the state of an audit", path_, {}, {}, {}, "name another file for --state"});
      }
      if (::ftruncate(fd_, 0) != 0) fail("cannot write", path_);
      write_all(fd_, std::as_bytes(std::span(own)), path_);
      return;
    }
    const auto head = static_cast<size_t>(newline - bytes.begin());
    check_key(path_, {reinterpret_cast<const char*>(bytes.data()), std::min(head, kMaxKey)}, full);
    read_records(bytes, head + 1);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

AuditState::~AuditState() { ::close(fd_); }

void AuditState::read_records(std::span<const std::byte> bytes, size_t at) {
  while (bytes.size() - at >= sizeof(RecordHead)) {
    RecordHead head;
    std::memcpy(&head, bytes.data() + at, sizeof(head));
    const size_t left = bytes.size() - at - sizeof(head);
    if (head.length < 0 || static_cast<uint64_t>(head.length) > left) break;
    const auto body = bytes.subspan(at + sizeof(head), static_cast<size_t>(head.length));
    if (sum_of(head, body) != head.sum) break;
    const std::string what(head.what.data(), ::strnlen(head.what.data(), head.what.size()));
    records_[{what, head.index}].assign(body.begin(), body.end());
    at += sizeof(head) + body.size();
  }
  if (at < bytes.size() && ::ftruncate(fd_, static_cast<off_t>(at)) != 0) {
    fail("cannot write", path_);
  }
}

const std::vector<std::byte>* AuditState::find(const std::string& what, int64_t index) const {
  const auto found = records_.find({what, index});
  return found == records_.end() ? nullptr : &found->second;
}

void AuditState::add(const std::string& what, int64_t index, std::span<const std::byte> bytes) {
  RecordHead head;
  CHECK(what.size() <= head.what.size());
  std::copy(what.begin(), what.end(), head.what.begin());
  head.index = index;
  head.length = static_cast<int64_t>(bytes.size());
  head.sum = sum_of(head, bytes);
  std::vector<std::byte> record(sizeof(head) + bytes.size());
  std::memcpy(record.data(), &head, sizeof(head));
  if (!bytes.empty()) std::memcpy(record.data() + sizeof(head), bytes.data(), bytes.size());
  write_all(fd_, record, path_);
  if (::fdatasync(fd_) != 0) fail("cannot write", path_);
  records_[{what, index}].assign(bytes.begin(), bytes.end());
}

}  // namespace carat::audit
