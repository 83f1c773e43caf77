#include "quantize/measure_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace carat::quantize {
namespace {

constexpr std::string_view kHead = "carat measurements 2";
constexpr int64_t kMostBytes = int64_t{1} << 30;
// Of one position: no two models are so far apart, and a larger one would hide all others.
constexpr double kMostKld = 1e6;
constexpr const char* kAnother = "name another --state";

// Takes what stands before the next blank, and the blank.
std::string_view take_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

// Sums of KLD and squared errors are finite and not below 0.
bool take_number(std::string_view& line, double& value) {
  const std::string_view word = take_word(line);
  const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), value);
  return code == std::errc() && end == word.data() + word.size() && std::isfinite(value) &&
         value >= 0;
}

std::string head_of(std::span<const LogKey> key) {
  std::string head(kHead);
  for (const LogKey& k : key) head += fmt::format(" {}={}", k.what, k.digest);
  return head;
}

std::string key_of(std::span<const Pick> picks) {
  std::string key;
  for (const Pick& pick : picks) {
    // At most some twenty types: one letter each.
    key += pick ? static_cast<char>('a' + static_cast<int>(*pick)) : '-';
  }
  return key;
}

constexpr const char* kKinds[] = {"search", "check"};
constexpr std::string_view kTypes = "types";

}  // namespace

MeasureLog::MeasureLog(const std::string& path, std::span<const LogKey> key,
                       const std::array<std::vector<int64_t>, 2>& counts)
    : path_(path), counts_(counts) {
  if (path.empty()) return;
  try {
    open(key);
  } catch (...) {
    if (fd_ >= 0) ::close(fd_);
    throw;
  }
}

MeasureLog::~MeasureLog() {
  if (fd_ >= 0) ::close(fd_);
}

void MeasureLog::open(std::span<const LogKey> key) {
  const auto fail = [&](const std::string& what, const char* hint) {
    throw Error({what, path_, "--state", {}, {}, hint});
  };
  // Without O_NONBLOCK opening a pipe would wait for a reader.
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd_ < 0) fail(std::string("the file cannot be written: ") + std::strerror(errno), "");
  struct stat st {};
  if (::fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) fail("not a regular file", kAnother);
  // A file system without locks is no reason to stop.
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    fail("another run keeps its measurements in the file", kAnother);
  }
  const std::string text = read_text_file(path_, kMostBytes);
  read(text, key);
  if (::ftruncate(fd_, static_cast<off_t>(sound_)) != 0 ||
      ::lseek(fd_, static_cast<off_t>(sound_), SEEK_SET) < 0) {
    fail(std::string("the file cannot be written: ") + std::strerror(errno), "");
  }
  if (sound_ == 0) write(head_of(key));
}

void MeasureLog::check_head(std::string_view head, std::span<const LogKey> key) const {
  if (!head.starts_with(kHead)) {
    throw Error({"not a file of measurements, or of another version of carat", path_, "--state",
                 std::string(kHead), std::string(head.substr(0, 40)), kAnother});
  }
  head.remove_prefix(std::min(kHead.size() + 1, head.size()));
  for (const LogKey& k : key) {
    const std::string_view word = take_word(head);
    const std::string expected = fmt::format("{}={}", k.what, k.digest);
    if (word == expected) continue;
    throw Error({"the measurements are of " + k.description, path_, "--state", expected,
                 std::string(word.substr(0, 80)), kAnother});
  }
}

void MeasureLog::read(std::string_view text, std::span<const LogKey> key) {
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) {
      // Cut, which a head is only where nothing else would be lost.
      if (number == 0 && !head_of(key).starts_with(text)) check_head(text, key);
      return;
    }
    const std::string_view line = text.substr(begin, end - begin);
    if (++number == 1) {
      check_head(line, key);
    } else {
      read_line(line, number);
    }
    begin = end + 1;
    sound_ = static_cast<int64_t>(begin);
  }
}

void MeasureLog::read_line(std::string_view line, int64_t number) {
  const std::string_view whole = line, kind = take_word(line), name = take_word(line);
  bool good = !name.empty();
  if (kind == kTypes) {
    std::vector<TypeChoice> types;
    while (good && !line.empty()) {
      TypeChoice t;
      const std::optional<DType> dtype = dtype_from_name(std::string(take_word(line)));
      good = dtype && take_number(line, t.error) && take_number(line, t.relative_error);
      if (good) t.dtype = *dtype;
      types.push_back(t);
    }
    good = good && !types.empty();
    if (good) types_[std::string(name)] = std::move(types);
  } else {
    const size_t at = kind == kKinds[0] ? 0 : 1;
    good = good && kind == kKinds[at];
    Klds klds;
    klds.counts = counts_[at];
    while (good && !line.empty()) good = take_number(line, klds.sums.emplace_back());
    good = good && klds.sums.size() == klds.counts.size();
    for (size_t c = 0; good && c < klds.sums.size(); ++c) {
      good = klds.sums[c] <= kMostKld * static_cast<double>(klds.counts[c]);
    }
    if (good) known_[at][std::string(name)] = std::move(klds);
  }
  if (good) return;
  throw Error({"not a measurement",
               path_,
               fmt::format("line {}", number),
               {},
               std::string(whole.substr(0, 80)),
               "end the file before that line, or name another --state"});
}

const Klds* MeasureLog::find(Chunks chunks, std::span<const Pick> picks) const {
  const auto& known = known_[static_cast<size_t>(chunks)];
  const auto found = known.find(key_of(picks));
  return found == known.end() ? nullptr : &found->second;
}

void MeasureLog::add(Chunks chunks, std::span<const Pick> picks, const Klds& klds) {
  const auto at = static_cast<size_t>(chunks);
  const std::string key = key_of(picks);
  known_[at][key] = klds;
  std::string line = fmt::format("{} {}", kKinds[at], key);
  // The shortest digits that give the same number again.
  for (const double s : klds.sums) line += fmt::format(" {}", s);
  write(line);
}

const std::vector<TypeChoice>* MeasureLog::find_types(const std::string& matrix) const {
  const auto found = types_.find(matrix);
  return found == types_.end() ? nullptr : &found->second;
}

void MeasureLog::add_types(const std::string& matrix, std::span<const TypeChoice> types) {
  types_[matrix].assign(types.begin(), types.end());
  std::string line = fmt::format("{} {}", kTypes, matrix);
  for (const TypeChoice& t : types) {
    line += fmt::format(" {} {} {}", name_of(t.dtype), t.error, t.relative_error);
  }
  write(line);
}

void MeasureLog::write(const std::string& line) {
  if (fd_ < 0) return;
  const std::string text = line + '\n';
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error({std::string("the file cannot be written: ") + std::strerror(errno),
                   path_,
                   "--state",
                   {},
                   {},
                   {}});
    }
    done += static_cast<size_t>(n);
  }
}

}  // namespace carat::quantize
