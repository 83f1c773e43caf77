// Files as bytes: read at an offset, map, and write so that a half-written file never carries the
// final name. All errors are Error with the path filled in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace carat {

// A file open for reading at any offset. Const methods may be called from several threads.
// An interface, so that tests can hand readers bytes that lie.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;
  virtual const std::string& path() const = 0;
  virtual int64_t size() const = 0;
  // Fills `out` from `offset`; throws Error if the file ends before.
  virtual void read(int64_t offset, std::span<std::byte> out) const = 0;
};

// Opens a regular file. Directories, missing and unreadable files are Errors that say which.
std::unique_ptr<RandomAccessFile> open_file(const std::string& path);

// Bytes in memory that pretend to be the file `path`. Does not own `bytes`.
std::unique_ptr<RandomAccessFile> memory_file(std::string path, std::span<const std::byte> bytes);

// A read-only mapping of a whole file. An empty file maps to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  // Tells the kernel that the pages wholly inside [offset, offset + length) are not needed soon,
  // so that they no longer count as resident; their contents stay readable.
  void release(int64_t offset, int64_t length) const;

 private:
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

// Writes a file under a temporary name in the target's folder; commit() flushes it to the disk and
// renames it. Destroyed without commit (an error, an interrupt), it removes the temporary file and
// an earlier file of the final name stays as it was.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);  // appends
  void write(const std::string& text) { write(std::as_bytes(std::span(text))); }
  // Overwrites bytes already written (a header whose contents are known only at the end).
  void write_at(int64_t offset, std::span<const std::byte> bytes);
  int64_t position() const { return position_; }
  // Drops written bytes from the page cache's dirty set and this process's view (for long streams).
  void flush_window();
  void commit();

 private:
  void drain();
  std::string path_, temporary_;
  int fd_ = -1;
  int64_t position_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
  size_t buffered_ = 0;
};

// Removes the temporary files of all AtomicFiles that are open, without locks or allocation: for a
// signal handler that is about to end the process.
void remove_temporary_files() noexcept;

// Whether two paths lead to the same file or directory. False if one does not exist.
bool same_file(const std::string& a, const std::string& b);

// A whole small file as text; throws if it is larger than `limit` bytes.
std::string read_text_file(const std::string& path, int64_t limit);

}  // namespace carat
