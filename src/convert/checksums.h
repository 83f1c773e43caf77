// SHA-256 of checkpoint files, and what others recorded about them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "io/tensor_writer.h"

namespace carat::convert {

struct FileDigest {
  std::string path;
  int64_t bytes = 0;
  std::string sha256;
  // What the Hub recorded when it was downloaded; empty where there is no record.
  std::string recorded;

  bool differs() const { return !recorded.empty() && recorded != sha256; }
};

Json to_json(const std::vector<FileDigest>& files);

// Of files that were written just now.
std::vector<FileDigest> digests_of(const std::vector<io::WrittenFile>& files);

// The digest that huggingface_hub left for a downloaded file: the name of the blob that a link in
// its cache leads to, or the line in .cache/huggingface/download beside the file (unless the file
// was changed after that). Lower case; empty if there is none.
std::string recorded_sha256(const std::string& path);

// The digest of `path` by its name in a text as sha256sum writes it, or in a Git LFS pointer.
// Throws Error if it has none.
std::string sha256_from_text_file(const std::string& list, const std::string& path);

// Throws Error if a file is not what was recorded.
void check_recorded(const std::vector<FileDigest>& files);

// Hashes files from beginning to end beside somebody who reads them in another order: neither gets
// far ahead of the other, so that each byte comes from the disk once as long as the order is
// roughly the files'. Each file is one thread's work, a few files at a time where they lie that
// near to each other.
class FileHasher {
 public:
  static constexpr int64_t kWindow = int64_t{256} << 20;

  // `window`: how many bytes the hasher and its reader may be apart.
  explicit FileHasher(std::vector<std::string> paths, int64_t window = kWindow);
  ~FileHasher();
  FileHasher(const FileHasher&) = delete;
  FileHasher& operator=(const FileHasher&) = delete;

  // The reader has done `bytes` altogether. Waits while the hasher is more than the window behind;
  // not after it failed, which finish() tells. Throws Interrupted if *stop is set meanwhile.
  void follow(int64_t bytes, const std::atomic<bool>* stop);
  // Waits for the end. Throws Error if a file could not be read, Interrupted if *stop is set
  // meanwhile. `progress`, if given, is called with the bytes done now and then.
  std::vector<FileDigest> finish(const std::atomic<bool>* stop,
                                 const std::function<void(int64_t done, int64_t total)>& progress);
  int64_t total_bytes() const { return total_; }
  int64_t done_bytes() const { return done_; }

 private:
  void allow(int64_t bytes);
  void run();
  void hash(size_t i, std::vector<std::byte>& buffer);

  const int64_t window_;
  std::vector<FileDigest> files_;
  std::vector<int64_t> begins_;  // of each file in all of their bytes
  int64_t total_ = 0;
  std::atomic<int64_t> done_{0};
  std::mutex mutex_;  // over all below
  std::condition_variable changed_;
  int64_t allowed_ = 0;
  size_t next_file_ = 0, at_work_ = 0;
  bool cancelled_ = false;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

// All of it at once.
std::vector<FileDigest> digest_files(
    const std::vector<std::string>& paths, const std::atomic<bool>* stop,
    const std::function<void(int64_t done, int64_t total)>& progress);

}  // namespace carat::convert
