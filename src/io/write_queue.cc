#include "io/write_queue.h"

#include <utility>

namespace carat::io {
namespace {
constexpr size_t kMaxUnderWay = 4;
}

WriteQueue::~WriteQueue() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void WriteQueue::add(std::function<void()> task) { push({std::move(task), nullptr, 0, {}}); }

void WriteQueue::add(Buffer buffer, size_t bytes,
                     std::function<void(std::span<const std::byte>)> task) {
  push({{}, std::move(buffer), bytes, std::move(task)});
}

void WriteQueue::push(Task task) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  if (task.buffer) {
    changed_.wait(lock, [&] { return failure_ || buffers_under_way_ < kMaxUnderWay; });
    ++buffers_under_way_;
  }
  if (failure_) std::rethrow_exception(failure_);
  tasks_.push_back(std::move(task));
  changed_.notify_all();
}

WriteQueue::Buffer WriteQueue::buffer() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) return std::make_unique_for_overwrite<std::byte[]>(kBufferBytes);
  Buffer buffer = std::move(free_.back());
  free_.pop_back();
  return buffer;
}

void WriteQueue::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || (tasks_.empty() && !busy_); });
  if (failure_) std::rethrow_exception(failure_);
}

void WriteQueue::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (stop_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (task.buffer) {
        task.write({task.buffer.get(), task.bytes});
      } else {
        task.run();
      }
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    if (task.buffer) {
      --buffers_under_way_;
      free_.push_back(std::move(task.buffer));
    }
    if (failure) {
      failure_ = failure;
      tasks_.clear();
    }
    changed_.notify_all();
    if (failure_) return;
  }
}

}  // namespace carat::io
