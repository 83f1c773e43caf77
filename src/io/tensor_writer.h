// Writes a checkpoint as a stream: the tensors are declared first, their bytes follow in order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "tensor/tensor.h"

namespace carat::io {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;  // slowest dimension first
};

// Files appear under their final names only in finish(); destroyed before, the writer leaves
// nothing behind. Written data are flushed in windows of 64 MB, so memory and dirty pages stay
// small. Not for several threads at once.
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

  // REQUIRES: every tensor is complete. Flushes to the disk and gives the files their names.
  void finish();

 protected:
  // Where a tensor's bytes go.
  struct Slot {
    int file = 0;
    int64_t offset = 0;
    int64_t bytes = 0;
  };

  // Checks names (UTF-8, unique, at most `max_name` bytes) and shapes (at most four dimensions,
  // whole blocks); throws Error.
  TensorWriter(std::vector<TensorSpec> specs, int64_t max_name);

  AtomicFile& add_file(const std::string& path);
  // One per tensor, in order, offsets ascending within a file; unset bytes between are zero.
  void set_slots(std::vector<Slot> slots);
  // Zeros up to `offset` of a file.
  void pad_to(AtomicFile& file, int64_t offset);
  // Called by finish() before the files get their names.
  virtual void complete() {}
  // Called by finish() when they have them.
  virtual void committed() {}
  int64_t spec_bytes(size_t i) const;

 private:
  std::vector<TensorSpec> specs_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<AtomicFile>> files_;
  size_t next_ = 0;     // tensor that begin() expects
  int64_t filled_ = 0;  // bytes of the tensor that was begun
  int64_t since_flush_ = 0;
  int64_t total_ = 0;
  int64_t written_ = 0;
};

}  // namespace carat::io
