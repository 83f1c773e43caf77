#include "kernels/cpu/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "base/checked.h"

namespace carat::kernels {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kSliceLines = (int64_t{8} << 20) / kLine;

// One word of every line, in several streams at once, as a product with several matrix rows reads:
// more than one stream of the processor's own prefetching can bring in.
uint64_t read_lines(const std::byte* p, int64_t lines) {
  constexpr int64_t kStreams = 8;
  uint64_t sum[kStreams] = {};
  const int64_t n = lines / kStreams;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t s = 0; s < kStreams; ++s) {
      uint64_t word;
      std::memcpy(&word, p + (s * n + i) * kLine, sizeof word);
      sum[s] ^= word;
    }
  }
  for (int64_t s = 1; s < kStreams; ++s) sum[0] ^= sum[s];
  return sum[0];
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool, std::span<const std::byte> bytes, int passes) {
  const int64_t lines = static_cast<int64_t>(bytes.size()) / kLine;
  // Keeps the reads alive.
  std::atomic<uint64_t> sink{0};
  double best = 0;
  for (int64_t i = 0; i < std::max(1, passes) * ceil_div(lines, kSliceLines); ++i) {
    const int64_t first = i * kSliceLines % round_up(lines, kSliceLines);
    const int64_t n = std::min(kSliceLines, lines - first);
    const std::byte* slice = bytes.data() + first * kLine;
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(n, ceil_div(n, pool.size() * 4), [&](int64_t begin, int64_t end, int) {
      sink.fetch_xor(read_lines(slice + begin * kLine, end - begin));
    });
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(n * kLine) / std::max(time.count(), 1e-9));
  }
  return best;
}

double measure_read_bandwidth(ThreadPool& pool, int64_t size, int passes) {
  std::vector<std::byte> memory(static_cast<size_t>(size), std::byte{1});
  return measure_read_bandwidth(pool, memory, passes);
}

}  // namespace carat::kernels
