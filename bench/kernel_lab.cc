// Kernel lab: speed and correctness of every matrix kernel of a table, beside the two floors of the
// machine measured in the same run: reading memory and the bare multiplication loop.
//
//   kernel_lab [--isa NAME] [--type Q4_0] [--tokens N] [--quick] [--cached]
//   kernel_lab --callgrind [--isa NAME] --type Q4_0 [--tokens N]
//
// Products read slices of a matrix larger than the caches in turn, so that weights come from
// memory; the best of many is told, as other work on the machine only ever makes one slower. Types
// ending in "s" are channel formats with static activations. --cached multiplies one small slice
// again and again on one thread: what arithmetic alone allows. --callgrind multiplies once and says
// how many multiply-adds that was (docs/performance.md).
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/cpu/bandwidth.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/multiply_rate.h"
#include "kernels/testing/quantized.h"
#include "kernels/tiles.h"
#include "quant/scheme.h"
#include "tensor/compare.h"

namespace {

using namespace carat;
using namespace carat::kernels;

constexpr int64_t kCols = 1536;
constexpr int64_t kCached = 768 << 10;  // bytes of a matrix that stays in the cache
constexpr int64_t kPattern = 64;        // rows that are made; the rest repeats them

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Free {
  void operator()(std::byte* p) const { std::free(p); }
};

// A matrix of one type as kernels read it: 16 rows are `unit_bytes`.
struct Matrix {
  std::string name;
  DType dtype = DType::kF32;
  std::optional<TileFormat> format;
  bool is_static = false;
  int64_t unit_bytes = 0, units = 0;
  std::unique_ptr<std::byte, Free> data;

  int64_t bytes() const { return units * unit_bytes; }
};

std::vector<float> random_floats(int64_t n, float scale) {
  Rng rng(1);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal()) * scale;
  return x;
}

// 16 rows from row `unit` * 16 of the pattern.
void make_unit(const Matrix& m, const std::vector<float>& values, int64_t unit, std::byte* out) {
  const float* rows = values.data() + unit * kTileRows * kCols;
  if (m.format && tile_info(*m.format).tail_bytes > 0) {
    const int range = *m.format == TileFormat::kC8 ? 128 : tile_info(*m.format).offset;
    std::vector<int8_t> codes(kTileRows * kCols);
    for (size_t i = 0; i < codes.size(); ++i) {
      const float code = rows[i] * static_cast<float>(range) * 8;
      codes[i] = static_cast<int8_t>(
          std::clamp(code, static_cast<float>(-range), static_cast<float>(range - 1)));
    }
    const std::vector<float> scales(kTileRows, 0.01f);
    return pack_channel_tile(*m.format, codes.data(), scales.data(), kTileRows, kCols, out);
  }
  const int64_t row_size = row_bytes(m.dtype, kCols);
  std::vector<std::byte> file(static_cast<size_t>(kTileRows * row_size));
  quant::encode_row(m.dtype, rows, file.data(), kTileRows * kCols);
  if (m.format) return pack_tile(m.dtype, file.data(), kTileRows, kCols, out);
  std::copy(file.begin(), file.end(), out);
}

void fill(Matrix& m, int64_t size) {
  m.unit_bytes = m.format ? tile_bytes(*m.format, kCols) : kTileRows * row_bytes(m.dtype, kCols);
  m.units = std::max<int64_t>(kPattern / kTileRows, size / m.unit_bytes);
  const auto bytes = static_cast<size_t>(m.bytes());
  m.data.reset(static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)));
  const std::vector<float> values = random_floats(kPattern * kCols, 0.05f);
  for (int64_t u = 0; u < kPattern / kTileRows; ++u) {
    make_unit(m, values, u, m.data.get() + u * m.unit_bytes);
  }
  for (int64_t u = kPattern / kTileRows; u < m.units; ++u) {
    std::memcpy(m.data.get() + u * m.unit_bytes,
                m.data.get() + u % (kPattern / kTileRows) * m.unit_bytes,
                static_cast<size_t>(m.unit_bytes));
  }
}

std::vector<Matrix> all_types() {
  std::vector<Matrix> types;
  for (const DTypeInfo& t : all_dtypes()) {
    const std::optional<TileFormat> format = tile_format(t.dtype);
    if (!format && t.dtype != DType::kF32 && t.dtype != DType::kF16 && t.dtype != DType::kBF16) {
      continue;
    }
    Matrix& m = types.emplace_back();
    m.name = name_of(t.dtype);
    m.dtype = t.dtype;
    m.format = format;
  }
  for (const char* name : {"C2", "C4", "C8", "C2s", "C4s", "C8s"}) {
    Matrix& m = types.emplace_back();
    m.name = name;
    m.format = name[1] == '2'   ? TileFormat::kC2
               : name[1] == '4' ? TileFormat::kC4
                                : TileFormat::kC8;
    m.is_static = name[2] == 's';
  }
  return types;
}

// n rows of activations in every form.
struct Activations {
  int64_t n;
  std::vector<float> floats;
  test::Quantized quantized;
  test::StaticCodes codes;

  Activations(const KernelTable& table, int64_t rows)
      : n(rows),
        floats(random_floats(rows * kCols, 1)),
        quantized(rows, kCols),
        codes(rows, kCols, 0.02f) {
    table.quantize_rows(floats.data(), quantized.rows);
    for (int64_t t = 0; t < rows; ++t) {
      table.static_codes(floats.data() + t * kCols, kCols, 0.02f, codes.codes.data() + t * kCols,
                         &codes.sums[static_cast<size_t>(t)]);
    }
  }
};

// Units [begin, end) of m times x into columns [16 * column, ...) of y, whose rows are y_rows long.
void multiply(const KernelTable& table, const Matrix& m, int64_t begin, int64_t end,
              const Activations& x, float* y, int64_t y_rows, int64_t column) {
  const std::byte* data = m.data.get() + begin * m.unit_bytes;
  const int64_t rows = (end - begin) * kTileRows;
  const LinearOutput out{y + column * kTileRows, y_rows};
  if (m.is_static) {
    const int i = static_cast<int>(*m.format) - static_cast<int>(TileFormat::kC2);
    return table.linear_channel[i]({data, m.unit_bytes, rows, kCols}, x.codes.rows, out);
  }
  if (m.format) {
    return table.linear_tiles[static_cast<int>(*m.format)]({data, m.unit_bytes, rows, kCols},
                                                           x.quantized.rows, out);
  }
  const FloatLinear f = m.dtype == DType::kF32   ? table.linear_f32
                        : m.dtype == DType::kF16 ? table.linear_f16
                                                 : table.linear_bf16;
  std::vector<float> scratch(&table == &generic_kernels() ? kFloatPanelRows * kCols : 0);
  f({data, m.unit_bytes / kTileRows, rows, kCols}, {x.floats.data(), kCols, x.n}, out,
    scratch.data());
}

bool is_correct(const KernelTable& table, const Matrix& m) {
  for (int64_t n : {1, 3, 7, 13}) {
    const Activations x(table, n);
    std::vector<float> want(static_cast<size_t>(n * kPattern)), got = want;
    multiply(generic_kernels(), m, 0, kPattern / kTileRows, x, want.data(), kPattern, 0);
    multiply(table, m, 0, kPattern / kTileRows, x, got.data(), kPattern, 0);
    if (first_bit_difference(got, want) >= 0) return false;
  }
  return true;
}

// Seconds of one product with `units` units, the best within the budget.
double time_product(const KernelTable& table, ThreadPool& pool, const Matrix& m, int64_t units,
                    const Activations& x, double budget) {
  const int64_t rows = units * kTileRows, slices = m.units / units;
  std::vector<float> y(static_cast<size_t>(x.n * rows));
  double best = 1e9;
  const double end = now() + budget;
  for (int64_t i = 0; i < 4 || now() < end; ++i) {
    const int64_t first = i % slices * units;
    const double start = now();
    const int threads = pool.size();
    pool.parallel_for(threads, 1, [&](int64_t begin, int64_t stop, int) {
      const int64_t a = begin * units / threads, b = stop * units / threads;
      multiply(table, m, first + a, first + b, x, y.data(), rows, a);
    });
    best = std::min(best, now() - start);
  }
  return best;
}

void measure(const KernelTable& table, const Matrix& m, int threads, std::vector<int64_t> tokens,
             bool cached, double budget) {
  ThreadPool pool(threads);
  const double read = measure_read_bandwidth(pool, {m.data.get(), static_cast<size_t>(m.bytes())});
  const double loop = measure_multiply_rate(pool, table.isa);
  for (int64_t n : tokens) {
    const Activations x(table, n);
    // Cached: half of a second cache; for many tokens no more than a millisecond takes.
    const int64_t slice = cached ? std::min(m.bytes(), n <= 8 ? kCached : 8 * m.unit_bytes)
                                 : std::min<int64_t>(m.bytes(), n <= 8 ? 24 << 20 : 6 << 20);
    const int64_t units = std::max<int64_t>(threads, slice / m.unit_bytes);
    const double seconds = time_product(table, pool, m, units, x, budget);
    const double macs = static_cast<double>(n * units * kTileRows * kCols) / seconds;
    const double bytes = static_cast<double>(units * m.unit_bytes) / seconds;
    fmt::print("{:<11}{:<8}{:>8}{:>7}{:>9.1f}{:>6.0f}%{:>8.1f}{:>6.0f}%\n", table.isa, m.name,
               threads, n, macs / 1e9, macs / loop * 100, bytes / 1e9, bytes / read * 100);
  }
}

int usage() {
  fmt::print(stderr,
             "usage: kernel_lab [--isa NAME] [--type Q4_0] [--tokens N] [--quick] [--cached] "
             "[--callgrind]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::optional<std::string> isa;
  std::string type;
  std::vector<int64_t> tokens = {1, 2, 4, 8, 16, 64, 512};
  bool quick = false, cached = false, callgrind = false;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--quick") {
      quick = true;
    } else if (arg == "--cached") {
      cached = true;
    } else if (arg == "--callgrind") {
      callgrind = true;
    } else if (arg == "--isa" && i + 1 < argc) {
      isa = argv[++i];
    } else if (arg == "--type" && i + 1 < argc) {
      type = argv[++i];
    } else if (arg == "--tokens" && i + 1 < argc) {
      const long n = std::strtol(argv[++i], nullptr, 10);
      if (n < 1 || n > 4096) return usage();
      tokens = {n};
    } else {
      return usage();
    }
  }
  if (quick && tokens.size() > 1) tokens = {1, 8, 64};
  const KernelTable& table = choose_kernels(isa);
  const int all = ThreadPool::available_processors();
  bool found = false;
  if (!callgrind) {
    fmt::print("{:<11}{:<8}{:>8}{:>7}{:>9}{:>7}{:>8}{:>7}\n", "isa", "type", "threads", "tokens",
               "GMAC/s", "loop", "GB/s", "read");
  }
  for (Matrix& m : all_types()) {
    if (!type.empty() && type != m.name) continue;
    found = true;
    fill(m, callgrind ? 0 : cached ? kCached : int64_t{quick ? 192 : 512} << 20);
    if (callgrind) {
      const Activations x(table, tokens.size() > 1 ? 64 : tokens[0]);
      std::vector<float> y(static_cast<size_t>(x.n * kPattern));
      multiply(table, m, 0, kPattern / kTileRows, x, y.data(), kPattern, 0);
      fmt::print("{} {}: {} multiply-adds\n", table.isa, m.name, x.n * kPattern * kCols);
      continue;
    }
    if (!is_correct(table, m)) {
      fmt::print("{} {}: WRONG\n", table.isa, m.name);
      return 1;
    }
    measure(table, m, 1, tokens, cached, quick ? 0.1 : 0.3);
    if (all > 1 && !cached) measure(table, m, all, tokens, cached, quick ? 0.1 : 0.3);
    m.data.reset();
  }
  return found ? 0 : usage();
}
