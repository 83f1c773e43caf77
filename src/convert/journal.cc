#include "convert/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "convert/lattice_json.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;  // raised when the same plan would give other bytes
constexpr int64_t kMaxJournal = int64_t{64} << 20;

std::string identity(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return path + " missing";
  std::error_code ignored;
  const fs::path absolute = fs::absolute(path, ignored).lexically_normal();
  return fmt::format("{} {} {}.{}", absolute.string(), static_cast<int64_t>(st.st_size),
                     static_cast<int64_t>(st.st_mtim.tv_sec),
                     static_cast<int64_t>(st.st_mtim.tv_nsec));
}

std::string head_line(const std::string& plan) {
  return to_json_text(Json{{"carat_conversion", kVersion}, {"plan", plan}}) + "\n";
}

std::string line_of(const Journal::Entry& e) {
  Json j;
  j["bytes"] = e.mark.bytes;
  j["sha256"] = to_hex(e.mark.digest);
  j["weights"] = e.findings.weights;
  j["weights_bit_exact"] = e.findings.weights_bit_exact;
  j["lattice"] = full_json(e.findings.lattice);
  const ErrorSums& error = e.findings.error;
  j["error"] = {error.squared_error, error.squared_weights, error.worst_relative};
  j["groups"] = {e.findings.groups, e.findings.groups_exact, e.findings.groups_rounded_scale};
  return to_json_text(j) + "\n";
}

Sha256::Digest digest_from_hex(const std::string& hex) {
  if (!is_sha256_hex(hex)) throw Error("not a digest");
  Sha256::Digest digest;
  for (size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
  }
  return digest;
}

template <class Number>
std::array<Number, 3> three_numbers(const Json& j, const char* key) {
  const Json& list = get(j, key);
  std::array<Number, 3> numbers{};
  if (!list.is_array() || list.size() != numbers.size()) throw Error("not three numbers");
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (!list[i].is_number()) throw Error("not a number");
    numbers[i] = list[i].get<Number>();
  }
  return numbers;
}

Journal::Entry entry_from(std::string_view line) {
  const Json j = parse_json(line);
  Journal::Entry e;
  e.mark.bytes = get_int(j, "bytes", 0, INT64_MAX);
  e.mark.digest = digest_from_hex(get_string(j, "sha256"));
  e.findings.weights = get_int(j, "weights", 0, INT64_MAX);
  e.findings.weights_bit_exact = get_int(j, "weights_bit_exact", 0, INT64_MAX);
  const Json* lattice = find(j, "lattice");
  if (lattice == nullptr) throw Error("no lattice");
  e.findings.lattice = lattice_from_full_json(*lattice);
  const auto error = three_numbers<double>(j, "error");
  e.findings.error = {error[0], error[1], error[2]};
  const auto groups = three_numbers<int64_t>(j, "groups");
  e.findings.groups = groups[0];
  e.findings.groups_exact = groups[1];
  e.findings.groups_rounded_scale = groups[2];
  return e;
}

}  // namespace

std::string plan_digest(const ConvertOptions& options, const std::vector<Item>& items) {
  Sha256 sum;
  const auto add = [&](const std::string& text) {
    sum.update(std::as_bytes(std::span(text)));
    sum.update(std::as_bytes(std::span("\n", 1)));
  };
  add(fmt::format("{} {} {} {} {} {}", name_of(options.format), options.min_lattice_share,
                  options.force_q4_0, options.max_shard_bytes, options.recipe.base,
                  options.accepted.text()));
  add(options.undo_scale_shift ? "undo_scale_shift" : "");
  if (!options.imatrix.empty()) add(identity(options.imatrix));
  std::string last;
  for (const Item& item : items) {
    const std::string& file = item.source.file->path();
    if (file != last) add(identity(file));
    last = file;
    add(fmt::format("{} {} {} {} {} {} {} {}", item.name, name_of(item.to),
                    carat::to_string(item.shape), item.source.name, name_of(item.source.dtype),
                    item.source.offset, item.judge, item.conditional));
    add(fmt::format("{} {} {}", static_cast<int>(item.how), name_of(item.layout.codes),
                    item.layout.scale_columns));
    sum.update(item.literal);
  }
  return to_hex(sum.digest());
}

std::string journal_path(const std::string& target, bool is_folder) {
  return is_folder ? (fs::path(target) / "conversion.part.journal").string()
                   : target + ".part.journal";
}

Journal::Journal(std::string path, std::string plan)
    : path_(std::move(path)), plan_(std::move(plan)) {
  std::error_code ignored;
  if (!fs::exists(path_, ignored)) return;
  std::string text;
  try {
    text = read_text_file(path_, kMaxJournal);
  } catch (const Error&) {
    return;  // it is of no use then
  }
  const std::string head = head_line(plan_);
  if (!text.starts_with(head)) {
    was_other_plan_ = true;
    return;
  }
  size_t at = head.size();
  for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    try {
      earlier_.push_back(entry_from(std::string_view(text).substr(at, end - at)));
    } catch (const Error&) {
      break;
    }
  }
}

Journal::~Journal() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!keep_) ::unlink(path_.c_str());
}

void Journal::begin(size_t n) {
  CHECK(n <= earlier_.size() && fd_ < 0);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd_ < 0) {
    throw Error(
        {std::string("cannot create the journal of the conversion: ") + std::strerror(errno),
         path_,
         {},
         {},
         {},
         {}});
  }
  std::string text = head_line(plan_);
  for (size_t i = 0; i < n; ++i) text += line_of(earlier_[i]);
  append(text);
}

void Journal::add(const Entry& entry) { append(line_of(entry)); }

void Journal::append(const std::string& line) {
  for (size_t at = 0; at < line.size();) {
    const ssize_t w = ::write(fd_, line.data() + at, line.size() - at);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) {
      throw Error(
          {std::string("cannot write the journal of the conversion: ") + std::strerror(errno),
           path_,
           {},
           {},
           {},
           {}});
    }
    at += static_cast<size_t>(w);
  }
}

}  // namespace carat::convert
