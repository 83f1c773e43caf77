#include "convert/journal.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "convert/lattice_json.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 2;  // raised when the same plan would give other bytes
constexpr int64_t kMaxJournal = int64_t{64} << 20;
constexpr const char* kFolderJournal = "conversion.part.journal";
constexpr const char* kFileJournalEnd = ".part.journal";

std::string identity(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) != 0) return path + " missing";
  std::error_code ignored;
  const fs::path absolute = fs::absolute(path, ignored).lexically_normal();
  return fmt::format("{} {} {}.{}", absolute.string(), static_cast<int64_t>(st.st_size),
                     static_cast<int64_t>(st.st_mtim.tv_sec),
                     static_cast<int64_t>(st.st_mtim.tv_nsec));
}

// Adds lines of text to a digest.
struct TextSum {
  Sha256 sum;
  void add(const std::string& text) {
    sum.update(std::as_bytes(std::span(text)));
    sum.update(std::as_bytes(std::span("\n", 1)));
  }
  void add(const ConvertOptions& o) {
    add(fmt::format("{} {} {} {} {} {} {}", name_of(o.format), o.min_lattice_share, o.force_q4_0,
                    is_directory(o.format) ? o.max_shard_bytes : o.max_file_bytes, o.recipe.base,
                    o.accepted.text(), o.undo_scale_shift));
    if (!o.imatrix.empty()) add(identity(o.imatrix));
  }
};

std::string head_line(const std::string& plan, const std::vector<std::string>& files) {
  Json names = Json::array();
  for (const std::string& file : files) names.push_back(fs::path(file).filename().string());
  return to_json_text(Json{{"carat_conversion", kVersion}, {"plan", plan}, {"files", names}}) +
         "\n";
}

// The target that the journal at `path` is about: a file, or a directory.
fs::path target_of(const fs::path& journal, bool* is_folder) {
  *is_folder = journal.filename() == kFolderJournal;
  if (*is_folder) return journal.parent_path();
  const std::string text = journal.string();
  return text.substr(0, text.size() - std::string_view(kFileJournalEnd).size());
}

// Whether a conversion to the target calls files of tensors so. What a journal says may be damaged,
// and what it names may be removed.
bool is_name_of_tensors(const std::string& name, const fs::path& target, bool is_folder) {
  if (name.find('/') != std::string::npos) return false;
  if (is_folder) return name.starts_with("model") && name.ends_with(".safetensors");
  const std::string stem =
      target.extension() == ".gguf" ? target.stem().string() : target.filename().string();
  return name == target.filename() || (name.starts_with(stem + "-") && name.ends_with(".gguf"));
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
    const bool sound =
        std::is_integral_v<Number> ? list[i].is_number_integer() : list[i].is_number();
    if (!sound) throw Error("not a number");
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
  TextSum sum;
  sum.add(options);
  std::string last;
  for (const Item& item : items) {
    const std::string& file = item.source.file->path();
    if (file != last) sum.add(identity(file));
    last = file;
    sum.add(fmt::format("{} {} {} {} {} {} {} {}", item.name, name_of(item.to),
                        carat::to_string(item.shape), item.source.name, name_of(item.source.dtype),
                        item.source.offset, item.judge, item.conditional));
    sum.add(fmt::format("{} {} {}", static_cast<int>(item.how), name_of(item.layout.codes),
                        item.layout.scale_columns));
    sum.sum.update(item.literal);
  }
  return to_hex(sum.sum.digest());
}

std::string plan_digest(const ConvertOptions& options, const std::vector<io::TensorSpec>& specs,
                        const std::vector<std::string>& source_paths) {
  TextSum sum;
  sum.add(options);
  for (const std::string& path : source_paths) sum.add(identity(path));
  for (const io::TensorSpec& spec : specs) {
    sum.add(fmt::format("{} {} {}", spec.name, name_of(spec.dtype), carat::to_string(spec.shape)));
  }
  return to_hex(sum.sum.digest());
}

std::string journal_path(const std::string& target, bool is_folder) {
  return is_folder ? (fs::path(target) / kFolderJournal).string() : target + kFileJournalEnd;
}

std::vector<std::string> journal_files(const std::string& journal) try {
  std::error_code ignored;
  if (!fs::exists(journal, ignored)) return {};
  const std::string text = read_text_file(journal, kMaxJournal);
  const Json head = parse_json(std::string_view(text).substr(0, text.find('\n')));
  const Json& names = get(head, "files");
  if (!names.is_array()) return {};
  bool is_folder = false;
  const fs::path target = target_of(journal, &is_folder);
  std::vector<std::string> files;
  for (const Json& name : names) {
    if (!name.is_string() || !is_name_of_tensors(name.get<std::string>(), target, is_folder)) {
      continue;
    }
    files.push_back((fs::path(journal).parent_path() / name.get<std::string>()).string());
  }
  return files;
} catch (const Error&) {
  return {};  // it is of no use then
}

Journal::Journal(std::string path, const std::string& plan, const std::vector<std::string>& files)
    : path_(std::move(path)), head_(head_line(plan, files)) {
  fd_ = io::open_locked(path_, path_);
  try {
    read();
  } catch (const Error&) {
    // It is of no use then.
  }
}

void Journal::read() {
  const std::string text = read_text_file(path_, kMaxJournal);
  earlier_files_ = journal_files(path_);
  if (!text.starts_with(head_)) {
    was_other_plan_ = !text.empty();
    return;
  }
  size_t at = head_.size();
  for (size_t end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
    earlier_.push_back(entry_from(std::string_view(text).substr(at, end - at)));
  }
}

Journal::~Journal() {
  struct stat st {};
  const bool is_new = ::fstat(fd_, &st) == 0 && st.st_size == 0;
  if (is_new || !keep_) ::unlink(path_.c_str());
  ::close(fd_);
}

[[noreturn]] void Journal::fail(const char* what) const {
  throw Error({std::string(what) + ": " + std::strerror(errno), path_, {}, {}, {}, {}});
}

void Journal::begin(size_t n) {
  CHECK(n <= earlier_.size());
  if (::ftruncate(fd_, 0) != 0 || ::lseek(fd_, 0, SEEK_SET) != 0) {
    fail("cannot begin the journal of the conversion");
  }
  keep_ = false;
  std::string text = head_;
  for (size_t i = 0; i < n; ++i) text += line_of(earlier_[i]);
  append(text);
}

void Journal::add(const Entry& entry) { append(line_of(entry)); }

void Journal::append(const std::string& line) {
  for (size_t at = 0; at < line.size();) {
    const ssize_t w = ::write(fd_, line.data() + at, line.size() - at);
    if (w < 0 && errno == EINTR) continue;
    if (w < 0) fail("cannot write the journal of the conversion");
    at += static_cast<size_t>(w);
  }
}

}  // namespace carat::convert
