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

// Where the journal of a target lies.
std::string journal_path(const std::string& target, bool is_folder);

// One text line per tensor, in order. add() may be called from another thread than the rest.
class Journal {
 public:
  struct Entry {
    io::FileMark mark;
    Findings findings;
  };

  // Reads what an earlier run left. A line that is cut off or damaged ends it; a journal of another
  // plan or of none is empty.
  Journal(std::string path, std::string plan);
  ~Journal();  // removes the file unless it was kept
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::vector<Entry>& earlier() const { return earlier_; }
  bool was_other_plan() const { return was_other_plan_; }

  // Starts the file anew with the first n earlier entries.
  void begin(size_t n);
  void add(const Entry& entry);
  void keep() { keep_ = true; }

 private:
  void append(const std::string& line);

  std::string path_, plan_;
  std::vector<Entry> earlier_;
  bool was_other_plan_ = false, keep_ = false;
  int fd_ = -1;
};

}  // namespace carat::convert
