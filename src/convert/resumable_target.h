// A target with a journal: it goes on where an earlier run of the same conversion ended, and clears
// away what one with other options left.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "convert/journal.h"
#include "convert/target.h"
#include "convert/transcode.h"

namespace carat::convert {

class ResumableTarget {
 public:
  // `plan`: of plan_digest. `source_paths`: files that must not be written over.
  ResumableTarget(const ConvertOptions& options, TargetParts parts, const std::string& plan,
                  const std::vector<std::string>& source_paths);

  io::TensorWriter& tensors() { return target_->tensors(); }

  // What became of the first tensors, which an earlier run completed: the next one to write is
  // behind them. None with options.overwrite. Call once, before anything is written.
  std::vector<Findings> take_over();
  // The tensor that was begun is complete.
  void mark(const Findings& findings);
  // Leaves what is there for a later run, if a tensor is complete.
  void leave();
  // As Target's. A failure before the first file has its name leaves nothing.
  void finish();

 private:
  void clear_away(const std::string& folder, const std::vector<std::string>& files);
  void tell(const std::string& text) const;

  const ConvertOptions& options_;
  std::unique_ptr<Target> target_;
  // Shared with the marks that wait in the writer's queue: it goes, and its file with it, when the
  // last of them has gone, before an unfinished directory is to be empty.
  std::shared_ptr<Journal> journal_;
  size_t done_ = 0, total_ = 0;  // tensors
};

}  // namespace carat::convert
