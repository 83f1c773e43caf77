#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

namespace carat {
namespace {

void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Spinning this long before parking covers the gap between two ops of one decode step.
constexpr int kSpins = 4000;

}  // namespace

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> generation{0};
  std::atomic<int> sleeping{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};

  // The loop in progress.
  std::optional<RangeFunction> function;
  int64_t n = 0;
  int64_t grain = 1;
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::vector<std::thread> threads;

  void work(int thread) {
    try {
      for (;;) {
        const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= n) break;
        (*function)(begin, std::min(n, begin + grain), thread);
      }
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next.store(n, std::memory_order_relaxed);
    }
  }

  void end() {
    {
      std::lock_guard lock(mutex);
      stop.store(true);
      generation.fetch_add(1);
    }
    wake.notify_all();
    for (std::thread& t : threads) t.join();
  }

  void thread_main(int thread) {
    uint64_t seen = 0;
    for (;;) {
      uint64_t now = generation.load(std::memory_order_acquire);
      for (int i = 0; now == seen && i < kSpins; ++i) {
        cpu_relax();
        now = generation.load(std::memory_order_acquire);
      }
      if (now == seen) {
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1);
        wake.wait(lock, [&] { return generation.load() != seen; });
        sleeping.fetch_sub(1);
        now = generation.load();
      }
      seen = now;
      if (stop.load()) return;
      work(thread);
      running.fetch_sub(1, std::memory_order_acq_rel);
    }
  }
};

ThreadPool::ThreadPool(int n_threads) : n_threads_(std::max(1, n_threads)) {
  if (n_threads_ == 1) return;
  state_ = std::make_unique<State>();
  try {
    for (int t = 1; t < n_threads_; ++t) {
      state_->threads.emplace_back([s = state_.get(), t] { s->thread_main(t); });
    }
  } catch (const std::system_error& e) {
    state_->end();
    throw Error({std::string("cannot start a thread: ") + e.what(),
                 {},
                 {},
                 {},
                 {},
                 "ask for fewer threads"});
  }
}

ThreadPool::~ThreadPool() {
  if (state_) state_->end();
}

void ThreadPool::run(int64_t n, int64_t grain, RangeFunction f) {
  State& s = *state_;
  s.function = f;
  s.n = n;
  s.grain = std::max<int64_t>(1, grain);
  s.error = nullptr;
  s.next.store(0, std::memory_order_relaxed);
  s.running.store(n_threads_ - 1, std::memory_order_relaxed);
  s.generation.fetch_add(1);
  if (s.sleeping.load() > 0) {
    std::lock_guard lock(s.mutex);
    s.wake.notify_all();
  }
  s.work(0);
  for (int i = 0; s.running.load(std::memory_order_acquire) != 0; ++i) {
    if (i < kSpins) {
      cpu_relax();
    } else {
      std::this_thread::yield();
    }
  }
  if (s.error) std::rethrow_exception(s.error);
}

namespace {

// Processors that the container's CPU quota allows (cgroup v2), or a large number without one.
int quota_processors() {
  std::FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!f) return 1 << 20;
  long long quota = 0, period = 0;
  const int n = std::fscanf(f, "%lld %lld", &quota, &period);
  std::fclose(f);
  if (n != 2 || quota <= 0 || period <= 0) return 1 << 20;
  return static_cast<int>(std::max<long long>(1, (quota + period - 1) / period));
}

}  // namespace

int ThreadPool::available_processors() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
  return std::max(1, std::min(n, quota_processors()));
}

}  // namespace carat
