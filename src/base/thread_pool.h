// A fixed set of threads that run one parallel loop at a time.
//
// Between loops they look out for the next one for some tens of microseconds and then sleep. The
// caller works too, and waits only for threads that took part: where other programs keep a
// processor busy, a loop is not slower than on the caller's thread alone.
//
// Results must not depend on the number of threads: a loop body may only depend on its index, and
// sums across indices are made by the caller in index order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace carat {

// A callable `void(int64_t begin, int64_t end, int thread)` by reference, without allocation.
class RangeFunction {
 public:
  template <class F>
  RangeFunction(F& f)  // NOLINT: implicit by intent
      : object_(&f), call_([](void* o, int64_t b, int64_t e, int t) { (*static_cast<F*>(o))(b, e, t); }) {}
  void operator()(int64_t begin, int64_t end, int thread) const { call_(object_, begin, end, thread); }

 private:
  void* object_;
  void (*call_)(void*, int64_t, int64_t, int);
};

class ThreadPool {
 public:
  // `n_threads` >= 1 counts the calling thread; 1 starts none.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return n_threads_; }

  // Calls f(begin, end, thread) over disjoint ranges that cover [0, n), in pieces of `grain`
  // indices that idle threads fetch. Returns when all are done. An exception from f is rethrown
  // here (the first one). Not reentrant: one caller at a time, and f must not call it.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& f) {
    if (n <= 0) return;
    if (n_threads_ == 1 || n <= grain) {
      f(int64_t{0}, n, 0);
      return;
    }
    run(n, grain, RangeFunction(f));
  }

  // Number of processor cores this process may use (see processors.h), at least 1.
  static int available_processors();

 private:
  void run(int64_t n, int64_t grain, RangeFunction f);
  struct State;
  int n_threads_;
  std::unique_ptr<State> state_;
};

}  // namespace carat
