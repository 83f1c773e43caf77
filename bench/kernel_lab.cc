// Kernel lab: speed and correctness of every table's matrix products at the shapes of Gemma 4 E2B,
// beside the two floors of the machine measured in the same run. Threads 1 and all.
//
//   kernel_lab [--isa NAME] [--type Q4_0] [--quick]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/cpu/bandwidth.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/multiply_rate.h"
#include "quant/scheme.h"
#include "tensor/compare.h"

namespace {

using carat::DType;
using carat::ThreadPool;
using carat::kernels::CpuOps;
using carat::kernels::KernelTable;
using carat::kernels::Value;
using carat::kernels::Weight;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of processor time of all threads: on a shared machine steadier than the clock.
double cpu_now() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

struct Shape {
  const char* what;
  DType dtype;
  int64_t rows, cols;
};

constexpr Shape kShapes[] = {
    {"q global", DType::kQ4_0, 4096, 1536},       {"ffn gate", DType::kQ4_0, 6144, 1536},
    {"ffn gate wide", DType::kQ4_0, 12288, 1536}, {"ffn down", DType::kQ4_0, 1536, 6144},
    {"ffn down wide", DType::kQ4_0, 1536, 12288}, {"ffn gate", DType::kQ8_0, 6144, 1536},
    {"head", DType::kQ6_K, 65536, 1536},          {"ple projection", DType::kF16, 8960, 1536},
    {"ple projection", DType::kBF16, 8960, 1536}, {"ple projection", DType::kF32, 8960, 1536},
};

// Copies of one random matrix, together larger than any cache, so that each product reads memory.
struct Matrices {
  Weight weight;
  std::vector<std::byte> bytes;
  int64_t size = 0, copies = 0;

  Matrices(const Shape& s, int64_t total) {
    size = s.rows * carat::row_bytes(s.dtype, s.cols);
    copies = std::max<int64_t>(1, total / size);
    bytes.resize(static_cast<size_t>(size * copies));
    carat::Rng rng(1);
    // Values of a few rows, repeated: their speed does not depend on them.
    std::vector<float> values(static_cast<size_t>(8 * s.cols));
    for (float& v : values) v = static_cast<float>(rng.normal()) * 0.05f;
    const int64_t part = 8 * carat::row_bytes(s.dtype, s.cols);
    carat::quant::encode_row(s.dtype, values.data(), bytes.data(), 8 * s.cols);
    for (int64_t at = part; at < static_cast<int64_t>(bytes.size()); at += part) {
      std::memcpy(&bytes[static_cast<size_t>(at)], bytes.data(),
                  static_cast<size_t>(std::min(part, static_cast<int64_t>(bytes.size()) - at)));
    }
    weight = {.dtype = s.dtype, .rows = s.rows, .cols = s.cols};
  }
  Weight copy(int64_t i) const {
    Weight w = weight;
    w.data = bytes.data() + i % copies * size;
    return w;
  }
};

std::vector<float> random_rows(int64_t n, int64_t cols) {
  carat::Rng rng(2);
  std::vector<float> x(static_cast<size_t>(n * cols));
  for (float& v : x) v = static_cast<float>(rng.normal());
  return x;
}

// Bits of the first rows against the scalar table.
bool is_correct(const KernelTable& table, const Matrices& m, const Shape& s) {
  ThreadPool pool(1);
  CpuOps fast(pool, table), slow(pool, carat::kernels::generic_kernels());
  const Weight w = carat::kernels::slice_rows(m.copy(0), 0, std::min<int64_t>(s.rows, 21));
  const std::vector<float> x = random_rows(6, s.cols);
  const Value a = fast.linear(fast.input(6, s.cols, x), w);
  const Value b = slow.linear(slow.input(6, s.cols, x), w);
  return carat::first_bit_difference(fast.view(a), slow.view(b)) < 0;
}

struct Timing {
  double best = 1e9;  // seconds of one product, the best of a few
  double cpu = 0;     // processor seconds of one product, the mean
};

Timing time_linear(CpuOps& ops, const Matrices& m, int64_t n, int64_t cols, double budget) {
  const Value x = ops.input(n, cols, random_rows(n, cols));
  (void)ops.linear(x, m.copy(0));
  Timing timing;
  const double end = now() + budget, cpu_start = cpu_now();
  int64_t i = 1;
  for (; i < 4 || now() < end; ++i) {
    const double start = now();
    (void)ops.linear(x, m.copy(i));
    timing.best = std::min(timing.best, now() - start);
  }
  timing.cpu = (cpu_now() - cpu_start) / static_cast<double>(i - 1);
  return timing;
}

void print_floors(int threads, const char* isa) {
  ThreadPool pool(threads);
  fmt::print("{} thread(s): read {:.1f} GB/s, multiply loop {:.0f} GMAC/s\n", threads,
             carat::kernels::measure_read_bandwidth(pool) / 1e9,
             carat::kernels::measure_multiply_rate(pool, isa) / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<std::string> isa;
  std::string type;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--quick") {
      quick = true;
    } else if (arg == "--isa" && i + 1 < argc) {
      isa = argv[++i];
    } else if (arg == "--type" && i + 1 < argc) {
      type = argv[++i];
    } else {
      fmt::print(stderr, "usage: kernel_lab [--isa NAME] [--type Q4_0] [--quick]\n");
      return 2;
    }
  }
  const KernelTable& table = carat::kernels::choose_kernels(isa);
  const int all = ThreadPool::available_processors();
  print_floors(1, table.isa);
  if (all > 1) print_floors(all, table.isa);
  fmt::print("{:<8}{:<6}{:<16}{:>14}{:>8}{:>8}{:>10}{:>9}{:>12}\n", "isa", "type", "matrix",
             "shape", "tokens", "threads", "GMAC/s", "GB/s", "GMAC/cpu-s");
  for (const Shape& s : kShapes) {
    if (!type.empty() && type != carat::name_of(s.dtype)) continue;
    const Matrices m(s, int64_t{quick ? 64 : 320} << 20);
    if (!is_correct(table, m, s)) {
      fmt::print("{} {}: WRONG\n", carat::name_of(s.dtype), s.what);
      return 1;
    }
    for (int threads : {1, all}) {
      ThreadPool pool(threads);
      CpuOps ops(pool, table);
      for (int64_t n : {1, 2, 4, 16, 64, 256}) {
        if (quick && n != 1 && n != 64) continue;
        const Timing timing = time_linear(ops, m, n, s.cols, quick ? 0.1 : 0.4);
        fmt::print("{:<8}{:<6}{:<16}{:>14}{:>8}{:>8}{:>10.1f}{:>9.1f}{:>12.1f}\n", table.isa,
                   carat::name_of(s.dtype), s.what, fmt::format("{}x{}", s.rows, s.cols), n,
                   threads, static_cast<double>(n * s.rows * s.cols) / timing.best / 1e9,
                   static_cast<double>(m.size) / timing.best / 1e9,
                   static_cast<double>(n * s.rows * s.cols) / timing.cpu / 1e9);
      }
      if (all == 1) break;
    }
  }
  return 0;
}
