#include "convert/resumable_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

// An earlier run may have ended while it gave files their names: those that have them are what the
// journal is about, and are proved to be before they count.
void take_names_back(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    const std::string part = file + ".part";
    std::error_code code;
    if (fs::exists(part, code) || !fs::is_regular_file(file, code)) continue;
    fs::rename(file, part, code);
    if (code) throw Error({"cannot rename the file: " + code.message(), file, {}, {}, {}, {}});
  }
}

}  // namespace

ResumableTarget::ResumableTarget(const ConvertOptions& options, TargetParts parts,
                                 const std::string& plan,
                                 const std::vector<std::string>& source_paths)
    : options_(options), total_(parts.specs.size()) {
  check_files(parts, options, source_paths);
  const std::vector<std::string> files = file_paths(parts);
  const std::string journal = journal_path(options.target, parts.is_folder);
  std::error_code code;
  const bool made = parts.is_folder && fs::create_directory(parts.path, code);
  if (code) {
    throw Error({"cannot make the directory: " + code.message(), parts.path, {}, {}, {}, {}});
  }
  try {
    journal_ = std::make_shared<Journal>(journal, plan, files);
    clear_away(parts.is_folder ? parts.path : "", files);
    target_ = std::make_unique<Target>(std::move(parts), true);
  } catch (...) {
    journal_.reset();
    if (made) fs::remove(options.target, code);  // only if it is empty
    throw;
  }
  if (made) target_->own_folder();
}

void ResumableTarget::clear_away(const std::string& folder, const std::vector<std::string>& files) {
  const std::vector<std::string>& earlier = journal_->earlier_files();
  const bool published = earlier.empty() || is_published(folder, earlier);
  for (const std::string& file : earlier) {
    if (std::find(files.begin(), files.end(), file) != files.end()) continue;
    io::remove_part_file(file);
    // Without what readers open first it belongs to nothing.
    std::error_code ignored;
    if (!published) fs::remove(file, ignored);
  }
  if (!published && !journal_->earlier().empty() && !options_.overwrite) take_names_back(files);
}

std::vector<Findings> ResumableTarget::take_over() {
  std::vector<io::FileMark> marks;
  if (!options_.overwrite) {
    for (const Journal::Entry& e : journal_->earlier()) marks.push_back(e.mark);
  }
  marks.resize(std::min(marks.size(), total_));
  if (!marks.empty()) tell("verifying what an unfinished conversion left");
  done_ = tensors().take_over(marks);
  std::vector<Findings> findings;
  for (size_t i = 0; i < done_; ++i) findings.push_back(journal_->earlier()[i].findings);
  const bool anew = journal_->was_other_plan() || !journal_->earlier().empty();
  journal_->begin(done_);
  if (done_ > 0) {
    tell(fmt::format("going on behind {} of {} tensors", done_, total_));
  } else if (anew) {
    tell("an unfinished conversion was there: begun anew");
  }
  return findings;
}

void ResumableTarget::mark(const Findings& findings) {
  ++done_;
  tensors().mark([journal = journal_, findings](const io::FileMark& mark) {
    journal->add({mark, findings});
  });
}

void ResumableTarget::leave() {
  if (done_ == 0) return;
  target_->keep();
  journal_->keep();
  const bool folder = is_directory(options_.format);
  tell(
      fmt::format("{} of {} tensors are kept in {}: the same command goes on from there, "
                  "--force begins anew",
                  done_, total_, options_.target + (folder ? "/*.part" : ".part")));
}

void ResumableTarget::finish() {
  target_->flush();
  journal_->keep();
  target_->finish();
  journal_->keep(false);
}

void ResumableTarget::tell(const std::string& text) const {
  if (options_.note) options_.note(text);
}

}  // namespace carat::convert
