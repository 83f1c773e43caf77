#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/processors.h"

namespace carat {
namespace {

using Clock = std::chrono::steady_clock;

// Spinning this long before parking covers the gap between two ops of one decode step; longer would
// take the processor from whoever else needs it.
constexpr std::chrono::microseconds kSpin{40};
constexpr int kSpinsBetweenClocks = 16;

void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Waits until done() for a short while; whether it came true.
template <class F>
bool spin_until(F&& done) {
  if (done()) return true;
  const Clock::time_point end = Clock::now() + kSpin;
  do {
    for (int i = 0; i < kSpinsBetweenClocks; ++i) {
      cpu_relax();
      if (done()) return true;
    }
  } while (Clock::now() < end);
  return false;
}

// State of the loop: its number, whether threads may still enter it, how many are inside.
constexpr uint64_t kInside = (uint64_t{1} << 31) - 1;
constexpr uint64_t kOpen = uint64_t{1} << 31;
constexpr uint64_t kLoop = uint64_t{1} << 32;

}  // namespace

// A loop is opened by its caller; threads that are awake enter it and fetch pieces. When no piece
// is left the caller closes it and waits for those inside. A thread that the system did not run in
// time misses the loop, and nobody waits for it.
struct ThreadPool::State {
  std::atomic<uint64_t> state{0};
  std::atomic<bool> stop{false};

  // Parked threads sleep on `bell`, the caller of a loop on `left`.
  std::atomic<uint32_t> bell{0};
  std::atomic<int> parked{0};
  std::atomic<uint32_t> left{0};
  std::atomic<bool> caller_parked{false};

  // The loop in progress: written while nobody is inside.
  std::optional<RangeFunction> function;
  int64_t n = 0;
  int64_t grain = 1;
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
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
      std::lock_guard lock(error_mutex);
      if (!error) error = std::current_exception();
      next.store(n, std::memory_order_relaxed);
    }
  }

  void ring() {
    bell.fetch_add(1);
    if (parked.load() > 0) bell.notify_all();
  }

  void end() {
    stop.store(true);
    ring();
    for (std::thread& t : threads) t.join();
  }

  // Whether this thread is now inside a loop that it has not been in; `seen` is then that loop.
  bool enter(uint64_t& seen) {
    uint64_t now = state.load(std::memory_order_acquire);
    while ((now & kOpen) && now / kLoop != seen) {
      if (state.compare_exchange_weak(now, now + 1, std::memory_order_acquire)) {
        seen = now / kLoop;
        return true;
      }
    }
    return false;
  }

  void leave() {
    state.fetch_sub(1);
    if (caller_parked.load()) {
      left.fetch_add(1);
      left.notify_one();
    }
  }

  void park(uint64_t& seen, bool& entered) {
    const uint32_t heard = bell.load();
    parked.fetch_add(1);
    // Only a loop opened before the bell was read can be missed by the wait.
    entered = enter(seen);
    if (!entered && !stop.load()) bell.wait(heard);
    parked.fetch_sub(1);
  }

  void thread_main(int thread) {
    uint64_t seen = 0;
    while (!stop.load()) {
      bool entered = false;
      if (!spin_until([&] { return (entered = enter(seen)) || stop.load(); })) park(seen, entered);
      if (!entered) continue;
      work(thread);
      leave();
    }
  }

  void wait_for_others() {
    const auto alone = [&] { return (state.load() & kInside) == 0; };
    if (spin_until(alone)) return;
    caller_parked.store(true);
    for (;;) {
      const uint32_t before = left.load();
      if (alone()) break;
      left.wait(before);
    }
    caller_parked.store(false);
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
  const uint64_t loop = s.state.load() / kLoop + 1;
  s.state.store(loop * kLoop | kOpen);
  s.ring();
  s.work(0);
  s.state.fetch_and(~kOpen);
  s.wait_for_others();
  if (s.error) std::rethrow_exception(s.error);
}

int ThreadPool::available_processors() { return usable_processors(); }

}  // namespace carat
