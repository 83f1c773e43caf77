// What the cpu_*.cc files share; nobody else includes it.
#pragma once

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/scalar/attention.h"

namespace carat::kernels {

// Work below this many multiply-adds is not worth waking another thread for.
inline constexpr int64_t kSmallWork = int64_t{1} << 16;

// A value's static codes of one scale.
struct StaticCopy {
  float scale = 0;
  StaticRows rows;
};

struct CpuValue final : ValueBase {
  CpuOps* ops = nullptr;
  float* data = nullptr;  // [rows, cols]
  // Made when first multiplied by a matrix that asks for them; codes null till then.
  QuantizedRows quantized;
  std::vector<StaticCopy> static_codes;  // one for each scale asked for

  CpuValue(CpuOps* owner, int64_t n_rows, int64_t n_cols) : ops(owner) {
    rows = n_rows;
    cols = n_cols;
    data = static_cast<float*>(ops->buffers_.take(bytes()));
    ++ops->live_values_;
  }
  ~CpuValue() override {
    ops->buffers_.give(data, bytes());
    if (quantized.codes) ops->give_quantized(quantized);
    for (StaticCopy& copy : static_codes) ops->give_static(copy.rows);
    --ops->live_values_;
  }
  int64_t bytes() const { return rows * cols * static_cast<int64_t>(sizeof(float)); }
  int64_t size() const { return rows * cols; }
};

inline CpuValue& cpu(const Value& x) { return static_cast<CpuValue&>(*x); }

// Whether products with w round their input with the scale that the checkpoint states.
inline bool is_static(const Weight& w) { return w.input_scale > 0; }
inline bool is_channel(TileFormat f) {
  return f == TileFormat::kC2 || f == TileFormat::kC4 || f == TileFormat::kC8;
}

// Rows [begin, begin + n) of q.
inline QuantizedRows row_range(const QuantizedRows& q, int64_t begin, int64_t n) {
  const int64_t blocks = q.cols / kActivationBlock;
  return {n,
          q.cols,
          q.codes + begin * q.cols,
          q.scales + begin * blocks,
          q.sums + begin * blocks,
          q.half_sums + begin * blocks * 2,
          q.scaled_sums + begin * blocks};
}

inline StaticRows row_range(const StaticRows& x, int64_t begin, int64_t n) {
  return {n, x.cols, x.codes + begin * x.cols, x.scales + begin, x.sums + begin};
}

// Rows of a matrix.
struct CpuOps::RowSpan {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// The left side of a matrix product in the form that the matrix asks for; the others are null.
struct CpuOps::Operand {
  QuantizedRows quantized;
  StaticRows codes;
  FloatRows floats;

  Operand rows(int64_t begin, int64_t n) const {
    if (quantized.codes) return {row_range(quantized, begin, n), {}, {}};
    if (codes.codes) return {{}, row_range(codes, begin, n), {}};
    return {{}, {}, {floats.data + begin * floats.stride, floats.stride, n}};
  }
};

// An operand whose memory belongs to no value.
struct CpuOps::PooledOperand {
  CpuOps& ops;
  Operand operand;
  Value floats;

  explicit PooledOperand(CpuOps& o) : ops(o) {}
  ~PooledOperand() {
    if (operand.quantized.codes) ops.give_quantized(operand.quantized);
    ops.give_static(operand.codes);
  }
  PooledOperand(const PooledOperand&) = delete;
  PooledOperand& operator=(const PooledOperand&) = delete;
};

// cos and sin of a set of positions.
struct CpuOps::RopeTurns {
  std::vector<float> inverse_frequency;
  std::vector<int32_t> positions;
  int64_t n_pairs = 0;          // leading pairs that turn at all
  std::vector<float> cos, sin;  // [positions, n_pairs]
};

// Query rows of one sequence that read the same K/V head.
struct CpuOps::AttentionUnit {
  int64_t row_begin = 0;  // rows of q, all of one sequence
  int64_t row_end = 0;
  int64_t kv_head = 0;
  int64_t key_begin = 0;  // union of what the rows see
  int64_t key_end = 0;
  const KvLayer* cache = nullptr;

  // About how much work it is.
  int64_t cost() const { return (key_end - key_begin) * (row_end - row_begin); }
  int64_t segment_begin() const { return key_begin / kKvPageTokens; }
  int64_t segment_end() const { return ceil_div(key_end, kKvPageTokens); }
};

template <class F>
void CpuOps::spread(int64_t n, int64_t unit, int64_t cost, F&& f) {
  const int64_t threads = pool_.size();
  int64_t grain = n;
  if (threads > 1 && n > unit && n * cost > kSmallWork) {
    const int64_t enough = ceil_div(kSmallWork / 2, std::max<int64_t>(1, cost));
    grain = round_up(std::max(enough, ceil_div(n, threads * 4)), unit);
  }
  pool_.parallel_for(n, grain, f);
}

template <class F>
void CpuOps::spread_rows(int64_t rows, int64_t unit, int64_t cost, int64_t n, F&& f) {
  // With few tokens the product is a matter of reading: each thread gets one or two ranges, long
  // enough for several streams in each. With many, finer pieces even out the threads, each of a few
  // tiles, for which the kernels bring the tokens into order once.
  constexpr int64_t kFewTokens = 8, kStreamRows = 8 * kTileRows, kLongest = 8192;
  constexpr int64_t kPanelRows = 4 * kTileRows;
  const int64_t threads = pool_.size();
  int64_t grain = rows;
  if (threads > 1 && rows > unit && rows * cost * n > kSmallWork) {
    if (n <= kFewTokens) {
      grain = std::min(ceil_div(rows, 2 * threads), kLongest);
      if (grain < kStreamRows) grain = ceil_div(rows, threads);
    } else {
      grain = ceil_div(rows, 8 * threads);
      if (rows >= kPanelRows * threads) grain = round_up(grain, kPanelRows);
    }
    const int64_t enough = ceil_div(kSmallWork / 2, std::max<int64_t>(1, cost * n));
    grain = round_up(std::max(grain, enough), unit);
  }
  pool_.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int thread) {
    f(RowSpan{begin, end}, thread);
  });
}

}  // namespace carat::kernels
