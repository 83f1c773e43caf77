// Attention lab: what one layer's attention costs at the shapes of Gemma 4 E2B, beside its floors.
// Every call reads pages that no cache holds: several layers take turns.
//
//   attention_lab [--isa NAME] [--threads N] [--kv f32|f16|int8] [--depth N] [--rows N] [--local]
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/dispatch.h"
#include "tensor/compare.h"

namespace {

using carat::ThreadPool;
using namespace carat::kernels;  // NOLINT: a lab

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Options {
  std::optional<std::string> isa;
  int threads = ThreadPool::available_processors();
  KvType type = KvType::kI8;
  int64_t depth = 0;  // 0: a few
  int64_t rows = 0;   // 0: 1 and 512
  bool local = false;
};

// What the layers that take turns touch together: more than the caches of most machines hold.
constexpr int64_t kTouchedBytes = int64_t{160} << 20;

// K and V of `n_layers` layers of one sequence, random. Pages before position `seen`, which no call
// reads, are one.
struct Caches {
  std::vector<std::vector<std::byte>> memory;
  std::vector<std::vector<std::byte*>> pages;
  std::vector<KvLayer> layers;

  Caches(CpuOps& ops, KvType type, int64_t head_dim, int64_t window, int64_t positions,
         int64_t seen, int64_t n_layers) {
    carat::Rng rng(1);
    std::vector<float> values(static_cast<size_t>(kKvPageTokens * head_dim));
    pages.resize(static_cast<size_t>(n_layers));
    for (std::vector<std::byte*>& list : pages) {
      KvLayer layer{type, 1, head_dim, {}};
      for (int64_t p = 0; p < positions; p += kKvPageTokens) {
        if (p == 0 || p + kKvPageTokens > seen) {
          memory.emplace_back(static_cast<size_t>(layer.page_bytes()));
        }
        list.push_back(memory.back().data());
      }
      layer.pages = list;
      layers.push_back(layer);
      // The first page by the op itself, the others copies of it.
      for (float& v : values) v = static_cast<float>(rng.normal());
      std::vector<RowRef> rows;
      for (int32_t t = 0; t < std::min(positions, kKvPageTokens); ++t) rows.push_back({0, t});
      const int64_t n = static_cast<int64_t>(rows.size());
      const Value k =
          ops.input(n, head_dim, std::span(values).first(static_cast<size_t>(n * head_dim)));
      (void)ops.attention(ops.input(0, head_dim, {}), k, k,
                          {.n_heads = 1,
                           .n_kv_heads = 1,
                           .head_dim = head_dim,
                           .window = window,
                           .q_rows = {},
                           .kv_rows = rows,
                           .sequences = {&layers.back(), 1}});
      for (size_t p = 1; p < list.size(); ++p) {
        if (list[p] == list[0]) continue;
        std::memcpy(list[p], list[0], static_cast<size_t>(layer.page_bytes()));
      }
    }
  }
};

struct Shape {
  int64_t heads, head_dim, window;
};

// Positions whose keys the last `rows` before `depth` see.
int64_t positions_seen(const Shape& s, int64_t depth, int64_t rows) {
  return s.window > 0 ? std::min(depth, s.window + rows - 1) : depth;
}

// Seconds of one layer's attention of the last `rows` positions before `depth`, the best of
// several.
double measure(CpuOps& ops, const Options& o, const Shape& s, int64_t depth, int64_t rows,
               std::vector<float>* result) {
  const int64_t seen = positions_seen(s, depth, rows);
  const int64_t layer_bytes = 2 * seen * kv_vector_bytes(o.type, s.head_dim);
  const int64_t n_layers = std::max<int64_t>(1, kTouchedBytes / layer_bytes);
  Caches caches(ops, o.type, s.head_dim, s.window, depth, depth - seen, n_layers);
  carat::Rng rng(2);
  std::vector<float> q(static_cast<size_t>(rows * s.heads * s.head_dim));
  for (float& x : q) x = static_cast<float>(rng.normal()) * 0.05f;
  std::vector<RowRef> refs;
  for (int64_t p = depth - rows; p < depth; ++p) refs.push_back({0, static_cast<int32_t>(p)});
  const Value qv = ops.input(rows, s.heads * s.head_dim, q);
  double best = 1e9;
  const double start = now();
  for (int round = 0; round < 4 || (now() - start < 1.0 && round < 200); ++round) {
    for (KvLayer& layer : caches.layers) {
      const double begin = now();
      const Value y = ops.attention(qv, nullptr, nullptr,
                                    {.n_heads = s.heads,
                                     .n_kv_heads = 1,
                                     .head_dim = s.head_dim,
                                     .window = s.window,
                                     .q_rows = refs,
                                     .kv_rows = {},
                                     .sequences = {&layer, 1}});
      best = std::min(best, now() - begin);
      if (&layer == &caches.layers.front()) {
        const auto v = ops.view(y);
        result->assign(v.begin(), v.end());
      }
    }
  }
  return best;
}

void report(const Options& o, const Shape& s, int64_t depth, int64_t rows) {
  double keys = 0;  // pairs of a row and a key it sees
  for (int64_t p = depth - rows; p < depth; ++p) {
    keys += static_cast<double>(s.window > 0 ? std::min(p + 1, s.window) : p + 1);
  }
  const double macs = keys * static_cast<double>(s.heads * s.head_dim * 2);
  const double bytes =
      static_cast<double>(positions_seen(s, depth, rows) * 2 * kv_vector_bytes(o.type, s.head_dim));
  std::vector<float> want;
  for (const KernelTable* table : supported_kernels()) {
    if (o.isa && *o.isa != table->isa) continue;
    if (!o.isa && table == &generic_kernels() && rows * depth > 1 << 16) continue;
    for (int threads = 1; threads <= o.threads; threads *= 2) {
      ThreadPool pool(threads);
      CpuOps ops(pool, *table);
      std::vector<float> got;
      const double t = measure(ops, o, s, depth, rows, &got);
      if (want.empty()) want = got;
      fmt::print(
          "{:8} {:2} threads  dim {:3}  depth {:6}  rows {:4}  {:9.1f} us  {:6.1f} GMAC/s  "
          "{:5.1f} GB/s  {}\n",
          table->isa, threads, s.head_dim, depth, rows, t * 1e6, macs / t / 1e9, bytes / t / 1e9,
          carat::first_bit_difference(got, want) < 0 ? "same" : "DIFFERENT");
      std::fflush(stdout);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto next = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string("0"); };
    if (a == "--isa") o.isa = next();
    if (a == "--threads") o.threads = std::stoi(next());
    if (a == "--depth") o.depth = std::stoll(next());
    if (a == "--rows") o.rows = std::stoll(next());
    if (a == "--local") o.local = true;
    if (a == "--kv") {
      const std::string t = next();
      o.type = t == "f32"     ? KvType::kF32
               : t == "f16"   ? KvType::kF16
               : t == "int4"  ? KvType::kI4
               : t == "int4r" ? KvType::kI4R
                              : KvType::kI8;
    }
  }
  const Shape shape = o.local ? Shape{8, 256, 512} : Shape{8, 512, 0};
  std::vector<int64_t> depths = {512, 8192, 32768}, rows = {1, 512};
  if (o.depth > 0) depths = {o.depth};
  if (o.rows > 0) rows = {o.rows};
  for (int64_t r : rows) {
    for (int64_t d : depths) {
      if (r <= d && (o.depth > 0 || r * d <= 512 * 8192)) report(o, shape, d, r);
    }
  }
  return 0;
}
