#include "quantize/measure_log.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/file.h"

namespace carat::quantize {
namespace {

constexpr std::string_view kHead = "carat measurements 1 ";
constexpr int64_t kMostBytes = int64_t{1} << 30;

// Takes what stands before the next blank, and the blank.
std::string_view take_word(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

}  // namespace

MeasureLog::MeasureLog(const std::string& path, const std::string& digest,
                       std::vector<int64_t> counts)
    : path_(path), counts_(std::move(counts)) {
  if (path.empty()) return;
  std::error_code ignored;
  const bool there = std::filesystem::exists(path, ignored);
  if (there) read(read_text_file(path, kMostBytes), digest);
  file_.reset(std::fopen(path.c_str(), sound_ > 0 ? "r+" : "w"));
  if (file_ == nullptr) {
    throw Error({"the file cannot be written", path, "--state", {}, {}, {}});
  }
  if (sound_ > 0) {
    std::filesystem::resize_file(path, static_cast<uint64_t>(sound_));
    std::fseek(file_.get(), 0, SEEK_END);
  } else {
    const std::string head = fmt::format("{}{}\n", kHead, digest);
    std::fwrite(head.data(), 1, head.size(), file_.get());
    std::fflush(file_.get());
  }
}

MeasureLog::~MeasureLog() = default;

void MeasureLog::read(const std::string& text, const std::string& digest) {
  std::string_view rest = text;
  const auto take_line = [&]() -> std::string_view {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) return {};
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    return line;
  };
  if (text.empty()) return;
  const std::string_view head = take_line();
  if (!head.starts_with(kHead)) {
    throw Error({"not a file of measurements", path_, {}, {}, {}, "name another --state"});
  }
  if (head.substr(kHead.size()) != digest) {
    throw Error({"the measurements are of another model, text or choice of types",
                 path_,
                 {},
                 digest,
                 std::string(head.substr(kHead.size(), 64)),
                 "name another --state"});
  }
  sound_ = static_cast<int64_t>(text.size() - rest.size());
  for (std::string_view line = take_line(); !line.empty(); line = take_line()) {
    const std::string key(take_word(line));
    Klds klds;
    klds.counts = counts_;
    while (!line.empty()) {
      const std::string_view word = take_word(line);
      double value = 0;
      const auto [end, code] = std::from_chars(word.data(), word.data() + word.size(), value);
      if (code != std::errc() || end != word.data() + word.size() || !std::isfinite(value)) return;
      klds.sums.push_back(value);
    }
    if (klds.sums.size() != counts_.size()) return;
    known_[key] = std::move(klds);
    sound_ = static_cast<int64_t>(text.size() - rest.size());
  }
}

std::string MeasureLog::key_of(std::span<const Pick> picks) {
  std::string key;
  for (const Pick& pick : picks) {
    // At most some twenty types: one letter each.
    key += pick ? static_cast<char>('a' + static_cast<int>(*pick)) : '-';
  }
  return key;
}

const Klds* MeasureLog::find(std::span<const Pick> picks) const {
  const auto found = known_.find(key_of(picks));
  return found == known_.end() ? nullptr : &found->second;
}

void MeasureLog::add(std::span<const Pick> picks, const Klds& klds) {
  const std::string key = key_of(picks);
  known_[key] = klds;
  if (file_ == nullptr) return;
  std::string line = key;
  // The shortest digits that give the same number again.
  for (const double s : klds.sums) line += fmt::format(" {}", s);
  line += '\n';
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw Error({"the file cannot be written", path_, "--state", {}, {}, {}});
  }
}

}  // namespace carat::quantize
