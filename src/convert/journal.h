// What a conversion has completed, in a file beside the target, so that it can go on after it was
// killed.
#pragma once

#include <string>
#include <vector>

#include "convert/convert.h"
#include "convert/plan.h"
#include "io/tensor_writer.h"

namespace carat::convert {

// Everything that decides the bytes of the result but texts that are written before any tensor:
// options, the tensors' types, places and order, and which files they come from (path, size, time
// of the last change). Hexadecimal.
std::string plan_digest(const ConvertOptions& options, const std::vector<Item>& items);
// The same for a conversion of all tensors of a checkpoint by rules that the options decide.
std::string plan_digest(const ConvertOptions& options, const std::vector<io::TensorSpec>& specs,
                        const std::vector<std::string>& source_paths);

// Where the journal of a target lies.
std::string journal_path(const std::string& target, bool is_folder);

// Final paths of the files that the journal names, if there is one that can be read; only names
// that a conversion to its target gives to files, in the journal's own folder.
std::vector<std::string> journal_files(const std::string& journal);

// A line that names the plan and the files of tensors, then one per tensor, in order. add() may be
// called from another thread than the rest.
class Journal {
 public:
  struct Entry {
    io::FileMark mark;
    Findings findings;
  };

  // Locks the journal and reads what an earlier run left. A line that is cut off or damaged ends
  // it; a journal of another plan or of none is empty. Throws Error if another process has it.
  // `files`: final paths of the files of tensors.
  Journal(std::string path, const std::string& plan, const std::vector<std::string>& files);
  ~Journal();  // removes the file, unless it was kept or holds only what an earlier run left
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::vector<Entry>& earlier() const { return earlier_; }
  bool was_other_plan() const { return was_other_plan_; }
  const std::vector<std::string>& earlier_files() const { return earlier_files_; }

  // Starts the file anew with the first n earlier entries.
  void begin(size_t n);
  void add(const Entry& entry);
  void keep(bool keep = true) { keep_ = keep; }

 private:
  void read();
  void append(const std::string& line);
  [[noreturn]] void fail(const char* what) const;

  std::string path_, head_;
  std::vector<Entry> earlier_;
  std::vector<std::string> earlier_files_;
  bool was_other_plan_ = false, keep_ = true;  // until begin()
  int fd_ = -1;
};

}  // namespace carat::convert
