#include "kernels/cpu/sgemm.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/sgemm_isa.h"

namespace carat::kernels {
namespace {

constexpr int64_t kColumns = 1024;  // of B packed at once: with kSgemmDepth rows, 1.5 MB
constexpr int64_t kRows = 64;       // of C in a task
constexpr int64_t kMaxTileRows = 16, kMaxTileCols = 32;

// Four floats: SSE2 and NEON are part of every machine of their kind.
typedef float Four __attribute__((vector_size(16)));

Four load_four(const float* p) {
  Four v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

void multiply_generic(int64_t k, const float* a, int64_t a_row, int64_t a_col, const float* b,
                      float alpha, float beta, float* c, int64_t ldc) noexcept {
  Four sum[4][2] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Four b0 = load_four(b + p * 8), b1 = load_four(b + p * 8 + 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float x = a[i * a_row + p * a_col];
      const Four xs = {x, x, x, x};
      sum[i][0] += xs * b0;
      sum[i][1] += xs * b1;
    }
  }
  for (int i = 0; i < 4; ++i) {
    float* row = c + i * ldc;
    for (int j = 0; j < 8; ++j) {
      const float y = alpha * sum[i][j / 4][j % 4];
      row[j] = beta != 0 ? y + beta * row[j] : y;
    }
  }
}

void pack_generic(int64_t k, const float* b, int64_t ldb, float* panel) noexcept {
  for (int64_t p = 0; p < k; ++p) {
    for (int j = 0; j < 8; ++j) panel[p * 8 + j] = b[j * ldb + p];
  }
}

const SgemmTile& tile_of(SgemmIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case SgemmIsa::kAvx2:
      return kSgemmAvx2;
    case SgemmIsa::kAvx512:
      return kSgemmAvx512;
#endif
    default:
      return kSgemmGeneric;
  }
}

// Aligned scratch that grows and stays with its thread.
class Scratch {
 public:
  float* get(int64_t n) {
    if (n > size_) {
      data_.reset(static_cast<float*>(
          ::operator new[](static_cast<size_t>(n) * sizeof(float), std::align_val_t{64})));
      size_ = n;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<float[], Free> data_;
  int64_t size_ = 0;
};

// Panel `j` of op(B): rows [p0, p0 + kc), columns [j0, j0 + cols), zeros past n.
void pack_b(const SgemmCall& s, const SgemmTile& t, int64_t p0, int64_t kc, int64_t j0,
            float* panel) {
  const int64_t n = std::min(t.cols, s.n - j0);
  if (s.transpose_b) {
    if (n == t.cols) {
      t.pack_transposed(kc, s.b + j0 * s.ldb + p0, s.ldb, panel);
      return;
    }
    for (int64_t p = 0; p < kc; ++p) {
      float* to = panel + p * t.cols;
      for (int64_t j = 0; j < n; ++j) to[j] = s.b[(j0 + j) * s.ldb + p0 + p];
      std::fill(to + n, to + t.cols, 0.0f);
    }
    return;
  }
  for (int64_t p = 0; p < kc; ++p) {
    float* to = panel + p * t.cols;
    std::memcpy(to, s.b + (p0 + p) * s.ldb + j0, static_cast<size_t>(n) * sizeof(float));
    std::fill(to + n, to + t.cols, 0.0f);
  }
}

// kc rows of N contiguous elements, `stride` apart, side by side.
template <int N>
void copy_rows(int64_t kc, const float* from, int64_t stride, float* to) {
  for (int64_t p = 0; p < kc; ++p) std::memcpy(to + p * N, from + p * stride, N * sizeof(float));
}

// Where a tile finds its rows of op(A).
struct Rows {
  const float* a;
  int64_t row, col;
};

// Rows [i0, i0 + tile) of op(A), columns [p0, p0 + kc): as they lie if A is not transposed, else
// (and at the lower edge, padded with zeros) a copy [kc][tile].
Rows rows_of_a(const SgemmCall& s, const SgemmTile& t, int64_t i0, int64_t p0, int64_t kc,
               float* copy) {
  const int64_t m = std::min(t.rows, s.m - i0);
  if (!s.transpose_a && m == t.rows) return {s.a + i0 * s.lda + p0, s.lda, 1};
  if (m == t.rows && (m == 8 || m == 6)) {
    const float* from = s.a + p0 * s.lda + i0;
    m == 8 ? copy_rows<8>(kc, from, s.lda, copy) : copy_rows<6>(kc, from, s.lda, copy);
    return {copy, 1, t.rows};
  }
  for (int64_t p = 0; p < kc; ++p) {
    float* to = copy + p * t.rows;
    if (s.transpose_a) {
      const float* from = s.a + (p0 + p) * s.lda + i0;
      for (int64_t i = 0; i < m; ++i) to[i] = from[i];
    } else {
      for (int64_t i = 0; i < m; ++i) to[i] = s.a[(i0 + i) * s.lda + p0 + p];
    }
    for (int64_t i = m; i < t.rows; ++i) to[i] = 0;
  }
  return {copy, 1, t.rows};
}

// Rows [i0, i1) times packed panels [panel0, panel1) of the columns from j0.
void multiply_block(const SgemmCall& s, const SgemmTile& t, int64_t p0, int64_t kc, int64_t i0,
                    int64_t i1, int64_t j0, int64_t panel0, int64_t panel1, const float* packed,
                    float beta) {
  thread_local Scratch a_scratch;
  float* copies = a_scratch.get(round_up(kRows, t.rows) * kSgemmDepth);
  Rows rows[kRows / 4 + 1];
  for (int64_t i = i0, r = 0; i < i1; i += t.rows, ++r) {
    rows[r] = rows_of_a(s, t, i, p0, kc, copies + r * t.rows * kSgemmDepth);
  }
  alignas(64) float edge[kMaxTileRows * kMaxTileCols];
  for (int64_t panel = panel0; panel < panel1; ++panel) {
    const int64_t j = j0 + panel * t.cols;
    const int64_t n = std::min(t.cols, s.n - j);
    for (int64_t i = i0, r = 0; i < i1; i += t.rows, ++r) {
      const int64_t m = std::min(t.rows, s.m - i);
      const float* b = packed + panel * t.cols * kc;
      float* c = s.c + i * s.ldc + j;
      if (m == t.rows && n == t.cols) {
        t.multiply(kc, rows[r].a, rows[r].row, rows[r].col, b, s.alpha, beta, c, s.ldc);
        continue;
      }
      t.multiply(kc, rows[r].a, rows[r].row, rows[r].col, b, s.alpha, 0, edge, t.cols);
      for (int64_t y = 0; y < m; ++y) {
        for (int64_t x = 0; x < n; ++x) {
          const float v = edge[y * t.cols + x];
          c[y * s.ldc + x] = beta != 0 ? v + beta * c[y * s.ldc + x] : v;
        }
      }
    }
  }
}

template <class F>
void loop(ThreadPool* pool, int64_t n, F&& f) {
  if (pool) {
    pool->parallel_for(n, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) f(i);
    });
  } else {
    for (int64_t i = 0; i < n; ++i) f(i);
  }
}

}  // namespace

const SgemmTile kSgemmGeneric = {4, 8, multiply_generic, pack_generic};

bool sgemm_supports(SgemmIsa isa) {
#if defined(__x86_64__)
  if (isa == SgemmIsa::kAvx2) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
  }
  if (isa == SgemmIsa::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
  }
#endif
  return isa == SgemmIsa::kGeneric;
}

SgemmIsa sgemm_best_isa() {
  static const SgemmIsa best = sgemm_supports(SgemmIsa::kAvx512) ? SgemmIsa::kAvx512
                               : sgemm_supports(SgemmIsa::kAvx2) ? SgemmIsa::kAvx2
                                                                 : SgemmIsa::kGeneric;
  return best;
}

void sgemm(const SgemmCall& s, ThreadPool* pool, SgemmIsa isa) {
  if (s.m <= 0 || s.n <= 0) return;
  const SgemmTile& t = tile_of(isa);
  CHECK(t.rows <= kMaxTileRows && t.cols <= kMaxTileCols);
  if (s.k <= 0) {
    for (int64_t i = 0; i < s.m; ++i) {
      float* row = s.c + i * s.ldc;
      for (int64_t j = 0; j < s.n; ++j) row[j] = s.beta != 0 ? s.beta * row[j] : 0;
    }
    return;
  }
  if (pool && pool->size() == 1) pool = nullptr;
  // A small product is not worth waking anyone.
  if (s.m * s.n * s.k < int64_t{1} << 16) pool = nullptr;
  thread_local Scratch b_scratch;

  const int64_t task_rows = round_up(kRows - t.rows + 1, t.rows);
  for (int64_t j0 = 0; j0 < s.n; j0 += kColumns) {
    const int64_t nc = std::min(kColumns, s.n - j0);
    const int64_t panels = ceil_div(nc, t.cols);
    float* packed = b_scratch.get(panels * t.cols * std::min(kSgemmDepth, s.k));
    for (int64_t p0 = 0; p0 < s.k; p0 += kSgemmDepth) {
      const int64_t kc = std::min(kSgemmDepth, s.k - p0);
      const float beta = p0 == 0 ? s.beta : 1.0f;
      loop(panels * kc > 2048 ? pool : nullptr, panels, [&](int64_t panel) {
        pack_b(s, t, p0, kc, j0 + panel * t.cols, packed + panel * t.cols * kc);
      });
      // Few rows: split the columns too, so that every thread finds work.
      const int64_t row_tasks = ceil_div(s.m, task_rows);
      const int64_t wanted = pool ? 4 * pool->size() : 1;
      const int64_t col_tasks = std::clamp<int64_t>(ceil_div(wanted, row_tasks), 1, panels);
      const int64_t per_task = ceil_div(panels, col_tasks);
      loop(pool, row_tasks * col_tasks, [&](int64_t task) {
        const int64_t i0 = task / col_tasks * task_rows;
        const int64_t panel0 = task % col_tasks * per_task;
        multiply_block(s, t, p0, kc, i0, std::min(s.m, i0 + task_rows), j0, panel0,
                       std::min(panels, panel0 + per_task), packed, beta);
      });
    }
  }
}

}  // namespace carat::kernels
