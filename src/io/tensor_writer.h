// Writes a checkpoint as a stream: the tensors are declared first, their bytes follow in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/part_file.h"
#include "io/write_queue.h"
#include "tensor/tensor.h"

namespace carat::io {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;  // slowest dimension first
};

struct WriteOptions {
  // Files are called PATH.part until finish(); what an earlier writer of the same tensors left can
  // be taken over.
  bool resumable = false;
};

// How far a file had come when a tensor in it was complete.
struct FileMark {
  int64_t bytes = 0;        // of the file, from its beginning to the tensor's end
  Sha256::Digest digest{};  // of those
};

// A file that was written.
struct WrittenFile {
  std::string path;
  int64_t bytes = 0;
  std::string sha256;  // hexadecimal
};

// Bytes are hashed and written by a thread of the writer's own, while the caller computes the next
// ones; they are given to the disk in windows of 64 MB, so memory and dirty pages stay small. A
// failed write is thrown by a later call.
//
// Files appear under their final names only in finish(). Destroyed before, the writer leaves
// nothing behind unless keep() was called. Not for several threads at once.
class TensorWriter {
 public:
  virtual ~TensorWriter() = default;
  TensorWriter(const TensorWriter&) = delete;
  TensorWriter& operator=(const TensorWriter&) = delete;

  const std::vector<TensorSpec>& specs() const { return specs_; }
  // Bytes of all declared tensors, and of those appended so far.
  int64_t total_bytes() const { return total_; }
  int64_t written_bytes() const { return written_; }

  // Starts the next tensor. REQUIRES: `name` is the next one declared and the one before it is
  // complete.
  void begin(std::string_view name);
  // Appends a part of the tensor that was begun. REQUIRES: it does not overfill the tensor.
  void append(std::span<const std::byte> bytes);
  // A whole tensor.
  void write(std::string_view name, std::span<const std::byte> bytes) {
    begin(name);
    append(bytes);
  }

  // Calls `done` on the writer's thread when everything appended so far was handed to the system.
  // REQUIRES: the tensor that was begun is complete.
  void mark(std::function<void(const FileMark&)> done);

  // Goes on behind the first tensors of what an earlier resumable writer left: marks[i] is that of
  // tensor i. Answers how many of them were found to be as the marks say; the next begin() is for
  // the tensor after them, everything behind is gone. REQUIRES: resumable, and nothing was begun.
  size_t take_over(std::span<const FileMark> marks);

  // Destroyed before finish(), the files stay under their temporary names.
  void keep();

  // REQUIRES: every tensor is complete. All bytes reach the disk, under the temporary names.
  void flush();
  // Flushes, if that was not done, and gives the files their names. Whoever is ended between two of
  // those never leaves old and new files that look like one checkpoint: what a reader opens first
  // goes before the first file gets its name, and comes back after the last.
  void finish();

  // Final paths of the files of tensors, in order.
  std::vector<std::string> paths() const;
  // After finish(): the files of tensors.
  std::vector<WrittenFile> files() const;

 protected:
  // Where a tensor's bytes go.
  struct Slot {
    int file = 0;
    int64_t offset = 0;
    int64_t bytes = 0;
  };

  // Checks names (UTF-8, unique, at most `max_name` bytes) and shapes (at most four dimensions,
  // whole blocks); throws Error.
  TensorWriter(std::vector<TensorSpec> specs, int64_t max_name, const WriteOptions& options);

  // The number of the new file.
  int add_file(const std::string& path);
  // Appends what stands outside of tensors.
  void put(int file, std::span<const std::byte> bytes);
  // Bytes of a file so far.
  int64_t position(int file) const { return ends_[static_cast<size_t>(file)]; }
  // One per tensor, in order, offsets ascending within a file; unset bytes between are zero.
  void set_slots(std::vector<Slot> slots);
  // Zeros up to `offset` of a file.
  void pad_to(int file, int64_t offset);
  // Called by flush() for what stands behind the tensors.
  virtual void complete() {}
  // Called by finish() before the first file gets its name: makes an earlier checkpoint of the same
  // names one that readers refuse. The first file gets its name last.
  virtual void retract() {}
  // Called by finish() when they have them.
  virtual void committed() {}
  int64_t spec_bytes(size_t i) const;

 private:
  void send();  // hands the buffer at hand to the thread

  std::vector<TensorSpec> specs_;
  std::vector<Slot> slots_;
  WriteOptions options_;
  std::vector<std::unique_ptr<PartFile>> files_;
  std::vector<int64_t> ends_;  // of every file, with what is still under way
  WriteQueue::Buffer buffer_;
  size_t buffered_ = 0;
  int buffered_file_ = 0;
  size_t next_ = 0;     // tensor that begin() expects
  int64_t filled_ = 0;  // bytes of the tensor that was begun
  int64_t total_ = 0;
  int64_t written_ = 0;
  bool flushed_ = false;
  WriteQueue queue_;  // last: its thread uses the files
};

}  // namespace carat::io
