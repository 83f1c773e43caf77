// A thread that does work in the order given, such as hashing and writing what others computed.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace carat::io {

// Not for several callers at once. The thread starts with the first task. After a task threw, the
// others are dropped and the next call throws what it threw.
class WriteQueue {
 public:
  static constexpr size_t kBufferBytes = size_t{4} << 20;
  using Buffer = std::unique_ptr<std::byte[]>;

  WriteQueue() = default;
  ~WriteQueue();  // drops what was not begun
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  void add(std::function<void()> task);
  // As a task with `bytes` of `buffer`, which is used again afterwards. Waits while four are under
  // way.
  void add(Buffer buffer, size_t bytes, std::function<void(std::span<const std::byte>)> task);
  // kBufferBytes of any contents.
  Buffer buffer();
  // Returns when everything is done.
  void drain();

 private:
  struct Task {
    std::function<void()> run;
    Buffer buffer;
    size_t bytes = 0;
    std::function<void(std::span<const std::byte>)> write;
  };
  void push(Task task);
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  std::vector<Buffer> free_;
  size_t buffers_under_way_ = 0;
  bool busy_ = false, stop_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace carat::io
