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

struct CpuValue final : ValueBase {
  CpuOps* ops = nullptr;
  float* data = nullptr;  // [rows, cols]
  QuantizedRows
      quantized;  // made when first multiplied by a quantized matrix; codes null till then

  CpuValue(CpuOps* owner, int64_t n_rows, int64_t n_cols) : ops(owner) {
    rows = n_rows;
    cols = n_cols;
    data = static_cast<float*>(ops->buffers_.take(bytes()));
    ++ops->live_values_;
  }
  ~CpuValue() override {
    ops->buffers_.give(data, bytes());
    if (quantized.codes) ops->give_quantized(quantized);
    --ops->live_values_;
  }
  int64_t bytes() const { return rows * cols * static_cast<int64_t>(sizeof(float)); }
  int64_t size() const { return rows * cols; }
};

inline CpuValue& cpu(const Value& x) { return static_cast<CpuValue&>(*x); }

// The left side of a matrix product in the form that the matrix's type asks for.
struct CpuOps::Operand {
  const QuantizedRows* quantized = nullptr;
  FloatRows floats;
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

}  // namespace carat::kernels
