#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"

namespace carat {
namespace {

TEST(ThreadPool, CoversEveryIndexOnce) {
  for (int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 7, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
      pool.parallel_for(n, 3, [&](int64_t b, int64_t e, int t) {
        EXPECT_LT(t, threads);
        for (int64_t i = b; i < e; ++i) seen[static_cast<size_t>(i)]++;
      });
      for (auto& s : seen) EXPECT_EQ(s.load(), 1);
    }
  }
}

TEST(ThreadPool, ManyShortLoops) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 20000; ++i) {
    pool.parallel_for(3, 1, [&](int64_t b, int64_t e, int) { sum += e - b; });
  }
  EXPECT_EQ(sum.load(), 60000);
}

// Pauses long enough for the threads to park, and pieces long enough for the caller to.
TEST(ThreadPool, SleepsAndWakes) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 40; ++i) {
    pool.parallel_for(6, 1, [&](int64_t b, int64_t e, int thread) {
      if (thread != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      sum += e - b;
    });
    if (i % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(sum.load(), 240);
}

// What a loop wrote without atomics is there when it has returned, and when the next one begins.
TEST(ThreadPool, LoopsHappenInOrder) {
  ThreadPool pool(4);
  std::vector<int64_t> x(64, 0);
  for (int i = 0; i < 2000; ++i) {
    pool.parallel_for(64, 4, [&](int64_t b, int64_t e, int) {
      for (int64_t j = b; j < e; ++j) x[static_cast<size_t>(j)] += j;
    });
  }
  for (int64_t j = 0; j < 64; ++j) EXPECT_EQ(x[static_cast<size_t>(j)], 2000 * j);
}

TEST(ThreadPool, EndsAtOnceWhileAwakeOrAsleep) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(4);
    if (i % 2 == 0) pool.parallel_for(8, 1, [](int64_t, int64_t, int) {});
  }
}

TEST(ThreadPool, RethrowsAndStaysUsable) {
  ThreadPool pool(2);
  EXPECT_THROW(pool.parallel_for(100, 1, [](int64_t, int64_t, int) { throw Error("x"); }), Error);
  std::atomic<int> n{0};
  pool.parallel_for(10, 1, [&](int64_t b, int64_t e, int) { n += static_cast<int>(e - b); });
  EXPECT_EQ(n.load(), 10);
}

}  // namespace
}  // namespace carat
