// A file that grows under a temporary name, is hashed on the way, and can go on where an earlier
// process ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/sha256.h"

namespace carat::io {

// Used by one thread at a time. Errors are Error with the final path.
//
// A file that may be taken over is called PATH.part and locked; any other PATH.partial-PID. Bytes
// that are written are given to the disk in windows, so that they do not pile up in memory.
class PartFile {
 public:
  // With `resumable`, an earlier PATH.part is kept for now: write() compares with what it holds and
  // take_over() reads on in it, until anything differs or end_reuse() is called.
  PartFile(std::string path, bool resumable);
  ~PartFile();  // removes the file unless it was committed, or kept
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t position() const { return position_; }  // bytes that belong to the result so far
  const Sha256& sha256() const { return sum_; }   // of those

  void write(std::span<const std::byte> bytes);  // appends

  // Takes over the earlier file's bytes up to `end` if they give `expected` as the digest of
  // everything up to there; otherwise changes nothing and answers false.
  bool take_over(int64_t end, const Sha256::Digest& expected);
  // From here on, what an earlier file held is gone.
  void end_reuse();

  void keep() { keep_ = true; }
  // All of it reaches the disk, under the temporary name.
  void flush();
  // Flushes what was not, and gives the file its name.
  void commit();

 private:
  bool matches(std::span<const std::byte> bytes);
  void flush_window();
  [[noreturn]] void fail(const char* what, int code) const;

  std::string path_, part_;
  bool resumable_;
  bool keep_ = false;
  int fd_ = -1;
  int64_t position_ = 0;
  int64_t reuse_ = 0;    // size of the earlier file, while it may still be of use
  int64_t flushed_ = 0;  // given to the disk; up to one window before that it has arrived there
  Sha256 sum_;
  std::unique_ptr<std::byte[]> buffer_;  // for reading an earlier file
};

// Opens the file at `path`, or makes it, and locks it: its descriptor. Throws Error, about `about`,
// if another process has it.
int open_locked(const std::string& path, const std::string& about);

// Removes what an earlier writer of `path` left in PATH.part, if there is anything. Throws Error if
// another process is writing it.
void remove_part_file(const std::string& path);

// What was made, renamed or removed in the folder of `path` reaches the disk. A folder that cannot
// be opened is no failure.
void flush_folder_of(const std::string& path);

}  // namespace carat::io
