// Products with float matrices, which lie in rows. Each (row, token) has its own eight lanes, as
// the canonical sum demands (kernels/ops.h); speed comes from many of them at once.
//
// Few tokens are bound by memory: rows are read in several streams far apart, each from its first
// byte to its last. More tokens: 8 rows x 512 columns are unpacked into a panel in the first cache
// that all tokens pass by; the lanes rest in memory between stretches of columns.
//
// clang-format off
// An Isa has
//   Vec                     kRows rows x 8 lanes
//   kVectors, kTokens       register tile of panels; kVectors * kRows divides 8
//   kSeveralTokens          up to as many tokens there is no panel
//   zero(), load(const float*), store(float*, Vec), fma(a, b, c)
//   eight(const float*)     the same 8 floats for every row; eight(p, n): n of 1..7, then zeros
//   Half                    8 lanes: zero_half(), load_half(const float*), load_half(p, n),
//                           store_half(float*, Half), fma_half, add_lanes(Half) and
//                           add_lanes(float* out, a, b, c, d), sums in the canonical order
//   prefetch(const std::byte*) into the first cache, prefetch_far into the second
// A Type has kBytes and Half load(const void*) of 8 elements.
// clang-format on
#pragma once

#include "kernels/cpu/table.h"
#include "kernels/cpu/tile/unroll.h"

namespace carat::kernels::tile {
namespace {

constexpr int64_t kFloatRows = 8;
constexpr int64_t kFloatCols = 512;
constexpr int64_t kFloatTokens = 64;   // whose lanes are kept at a time
constexpr int kFewFloatTokens = 3;     // of the register tile without a panel
constexpr int64_t kFloatAhead = 1024;  // bytes

// The last n < 8 elements of a row, padded with zeros.
template <class Type>
CARAT_INLINE auto load_tail(const std::byte* p, int64_t n) {
  alignas(32) std::byte padded[32] = {};
  __builtin_memcpy(padded, p, static_cast<size_t>(n * Type::kBytes));
  return Type::load(padded);
}

// Rows row[0 .. S) times T tokens.
template <class Isa, class Type, int S, int T>
CARAT_INLINE void float_rows(const std::byte* const* row, int64_t cols, const FloatRows& x,
                             float* const* out, int64_t stride) {
  using Half = typename Isa::Half;
  Half acc[S][T];
  unroll<S>([&](auto s) CARAT_LAMBDA {
    unroll<T>([&](auto t) CARAT_LAMBDA { acc[s][t] = Isa::zero_half(); });
  });
  int64_t i = 0;
  for (; i + 8 <= cols; i += 8) {
    Half xv[T];
    unroll<T>([&](auto t) CARAT_LAMBDA { xv[t] = Isa::load_half(x.data + t * x.stride + i); });
    unroll<S>([&](auto s) CARAT_LAMBDA {
      const std::byte* p = row[s] + i * Type::kBytes;
      if (i * Type::kBytes % 64 == 0) Isa::prefetch(p + kFloatAhead);
      const Half w = Type::load(p);
      unroll<T>([&](auto t) CARAT_LAMBDA { acc[s][t] = Isa::fma_half(xv[t], w, acc[s][t]); });
    });
  }
  if (i < cols) {
    unroll<S>([&](auto s) CARAT_LAMBDA {
      const Half w = load_tail<Type>(row[s] + i * Type::kBytes, cols - i);
      unroll<T>([&](auto t) CARAT_LAMBDA {
        acc[s][t] =
            Isa::fma_half(Isa::load_half(x.data + t * x.stride + i, cols - i), w, acc[s][t]);
      });
    });
  }
  unroll<S>([&](auto s) CARAT_LAMBDA {
    unroll<T>([&](auto t) CARAT_LAMBDA { out[s][t * stride] = Isa::add_lanes(acc[s][t]); });
  });
}

// All tokens, a few at a time: the rows stay in the first cache.
template <class Isa, class Type, int S>
CARAT_INLINE void for_float_groups(const std::byte* const* row, int64_t cols, const FloatRows& x,
                                   float* const* out, int64_t stride) {
  for_groups<kFewFloatTokens>(x.n, [&](int64_t t, auto T) CARAT_LAMBDA {
    float* to[S];
    for (int s = 0; s < S; ++s) to[s] = out[s] + t * stride;
    float_rows<Isa, Type, S, T>(row, cols, {x.data + t * x.stride, x.stride, T}, to, stride);
  });
}

// T tokens, or any number for T = 0.
template <class Isa, class Type, int S, int T>
__attribute__((noinline)) void few_floats(const WeightRows& w, const FloatRows& x,
                                          const LinearOutput& y) {
  const int64_t per_stream = w.rows / S;
  for (int64_t i = 0; i < per_stream; ++i) {
    const std::byte* row[S];
    float* out[S];
    for (int s = 0; s < S; ++s) {
      row[s] = w.data + (s * per_stream + i) * w.row_bytes;
      out[s] = y.data + s * per_stream + i;
    }
    if constexpr (T > 0) {
      float_rows<Isa, Type, S, T>(row, w.cols, x, out, y.stride);
    } else {
      for_float_groups<Isa, Type, S>(row, w.cols, x, out, y.stride);
    }
  }
  for (int64_t o = S * per_stream; o < w.rows; ++o) {
    const std::byte* row = w.data + o * w.row_bytes;
    float* out = y.data + o;
    for_float_groups<Isa, Type, 1>(&row, w.cols, x, &out, y.stride);
  }
}

// Columns [0, cols) of n <= 16 rows from `row` on, interleaved by eight; what is missing is zero.
// Asks for what lies `ahead` meanwhile. Eight rows at a time, as no more lines with the same place
// in a page fit into the first cache.
template <class Isa, class Type>
CARAT_INLINE void unpack_floats(const std::byte* row, int64_t row_bytes, int64_t n, int64_t cols,
                                int64_t ahead, float* panel) {
  constexpr int kAtOnce = 8;
  for (int64_t r = 0; r < kFloatRows; r += kAtOnce) {
    const std::byte* p[kAtOnce];
    for (int j = 0; j < kAtOnce; ++j) p[j] = row + (r + j < n ? r + j : n - 1) * row_bytes;
    float* out = panel + 8 * r;
    int64_t i = 0;
    for (; i + 8 <= cols; i += 8, out += 8 * kFloatRows) {
      unroll<kAtOnce>([&](auto j) CARAT_LAMBDA {
        if (i * Type::kBytes % 64 == 0) Isa::prefetch_far(p[j] + i * Type::kBytes + ahead);
        Isa::store_half(out + 8 * j, Type::load(p[j] + i * Type::kBytes));
      });
    }
    for (int j = 0; i < cols && j < kAtOnce; ++j) {
      Isa::store_half(out + 8 * j, load_tail<Type>(p[j] + i * Type::kBytes, cols - i));
    }
  }
}

// Lanes [token][row] += a panel times T tokens.
template <class Isa, int T>
__attribute__((noinline)) void multiply_floats(const float* panel, int64_t cols, const float* x,
                                               int64_t x_stride, bool first, float* lanes) {
  constexpr int kVectors = Isa::kVectors;
  constexpr int64_t kStep = Isa::kRows * 8, kTokenLanes = kFloatRows * 8;
  for (int64_t at = 0; at < kTokenLanes; at += kVectors * kStep) {
    typename Isa::Vec acc[kVectors][T];
    unroll<kVectors>([&](auto v) CARAT_LAMBDA {
      unroll<T>([&](auto t) CARAT_LAMBDA {
        acc[v][t] = first ? Isa::zero() : Isa::load(lanes + t * kTokenLanes + at + v * kStep);
      });
    });
    const float* w = panel + at;
    int64_t i = 0;
    for (; i + 8 <= cols; i += 8, w += kTokenLanes) {
      typename Isa::Vec xv[T];
      unroll<T>([&](auto t) CARAT_LAMBDA { xv[t] = Isa::eight(x + t * x_stride + i); });
      unroll<kVectors>([&](auto v) CARAT_LAMBDA {
        const typename Isa::Vec wv = Isa::load(w + v * kStep);
        unroll<T>([&](auto t) CARAT_LAMBDA { acc[v][t] = Isa::fma(xv[t], wv, acc[v][t]); });
      });
    }
    if (i < cols) {
      unroll<kVectors>([&](auto v) CARAT_LAMBDA {
        const typename Isa::Vec wv = Isa::load(w + v * kStep);
        unroll<T>([&](auto t) CARAT_LAMBDA {
          acc[v][t] = Isa::fma(Isa::eight(x + t * x_stride + i, cols - i), wv, acc[v][t]);
        });
      });
    }
    unroll<kVectors>([&](auto v) CARAT_LAMBDA {
      unroll<T>([&](auto t) CARAT_LAMBDA {
        Isa::store(lanes + t * kTokenLanes + at + v * kStep, acc[v][t]);
      });
    });
  }
}

// At most kFloatTokens tokens.
template <class Isa, class Type>
CARAT_INLINE void many_floats(const WeightRows& w, const FloatRows& x, const LinearOutput& y) {
  alignas(64) float panel[kFloatRows * kFloatCols];
  alignas(64) float lanes[kFloatTokens * kFloatRows * 8];
  for (int64_t o = 0; o < w.rows; o += kFloatRows) {
    const int64_t n_rows = w.rows - o < kFloatRows ? w.rows - o : kFloatRows;
    const std::byte* row = w.data + o * w.row_bytes;
    for (int64_t col = 0; col == 0 || col < w.cols; col += kFloatCols) {
      const int64_t cols = w.cols - col < kFloatCols ? w.cols - col : kFloatCols;
      const int64_t ahead =
          col + cols < w.cols ? cols * Type::kBytes : kFloatRows * w.row_bytes - col * Type::kBytes;
      unpack_floats<Isa, Type>(row + col * Type::kBytes, w.row_bytes, n_rows, cols, ahead, panel);
      for_groups<Isa::kTokens>(x.n, [&](int64_t t, auto T) CARAT_LAMBDA {
        multiply_floats<Isa, T>(panel, cols, x.data + t * x.stride + col, x.stride, col == 0,
                                lanes + t * kFloatRows * 8);
      });
    }
    for (int64_t t = 0; t < x.n; ++t) {
      const float* from = lanes + t * kFloatRows * 8;
      float* out = y.data + t * y.stride + o;
      int64_t r = 0;
      for (; r + 4 <= n_rows; r += 4, from += 32) {
        Isa::add_lanes(out + r, Isa::load_half(from), Isa::load_half(from + 8),
                       Isa::load_half(from + 16), Isa::load_half(from + 24));
      }
      for (; r < n_rows; ++r, from += 8) out[r] = Isa::add_lanes(Isa::load_half(from));
    }
  }
}

template <class Isa, class Type>
CARAT_INLINE void linear_float(const WeightRows& w, const FloatRows& x, const LinearOutput& y) {
  if (x.n > Isa::kSeveralTokens) {
    int64_t parts = (x.n + kFloatTokens - 1) / kFloatTokens;
    for (int64_t t = 0, n; t < x.n; t += n, --parts) {
      n = (x.n - t + parts - 1) / parts;
      many_floats<Isa, Type>(w, {x.data + t * x.stride, x.stride, n},
                             {y.data + t * y.stride, y.stride});
    }
  } else if (x.n > 1) {
    few_floats<Isa, Type, 4, 0>(w, x, y);
  } else if (x.n == 1) {
    few_floats<Isa, Type, 8, 1>(w, x, y);
  }
}

}  // namespace
}  // namespace carat::kernels::tile
