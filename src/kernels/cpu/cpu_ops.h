// The Ops of inference on processors: float values in recycled memory, the kernels of one table,
// the threads of one pool. Weights are read where they lie: F32, F16 and BF16 row by row, quantized
// types in tiles; quantized matrices that lie in rows are packed tile by tile as they are needed.
//
// Bit-identical results for any number of threads and any table (table.h), as ops.h promises.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/cpu/buffer_pool.h"
#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/table.h"
#include "kernels/ops.h"

namespace carat::kernels {

struct CpuValue;

class CpuOps final : public Ops {
 public:
  // `pool` and `table` outlive the CpuOps; while it works, nothing else may use the pool.
  explicit CpuOps(ThreadPool& pool, const KernelTable& table = choose_kernels());
  ~CpuOps() override;

  Value input(int64_t rows, int64_t cols, std::span<const float> values) override;
  void read(const Value& x, std::span<float> out) override;

  Value embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin, int64_t cols,
              float scale) override;
  Value take_rows(const Value& x, std::span<const int32_t> rows) override;

  Value linear(const Value& x, const Weight& w) override;
  Value rms_norm(const Value& x, const Weight* w, int64_t group, float eps) override;
  Value rope(const Value& x, const Rope& rope, std::span<const RowRef> rows) override;
  Value add(const Value& a, const Value& b) override;
  Value scale(const Value& x, float factor) override;
  Value scale_by(const Value& x, const Weight& scalar) override;
  Value geglu(const Value& gate, const Value& up) override;
  Value softcap(const Value& x, float cap) override;
  Value attention(const Value& q, const Value& k, const Value& v,
                  const AttentionCall& call) override;

  Route route(const Value& logits, const Weight& expert_scale, int64_t top_k) override;
  Value experts(const Value& x, const Route& route, const Weight& gate_up,
                const Weight& down) override;

  Value add_norm(const Value& x, const Value& y, const Weight& w, float eps) override;
  Value gated(const Value& x, const Weight& gate, const Weight& up) override;

  // The values of x in memory, [rows, cols] row-major; valid while x lives.
  std::span<const float> view(const Value& x) const;

  const KernelTable& table() const { return table_; }
  int threads() const { return pool_.size(); }
  // Memory of values that are alive, and kept for the next ones.
  int64_t bytes_in_use() const { return buffers_.bytes_in_use(); }
  int64_t bytes_at_rest() const { return buffers_.bytes_at_rest(); }

 private:
  struct Operand;
  struct RowSpan;
  struct AttentionUnit;
  class CodeAttention;
  struct RopeTurns;

  Value make(int64_t rows, int64_t cols);

  // f(begin, end, thread) over [0, n) where one index costs about `cost` multiply-adds; pieces are
  // multiples of `unit` indices. Small work stays on this thread.
  template <class F>
  void spread(int64_t n, int64_t unit, int64_t cost, F&& f);

  // Element i of the value vector or scalar `w` as floats: the bytes themselves if they are
  // floats, else converted into params_.
  const float* floats_of(const Weight& w);

  // f(rows, thread) over [0, rows) where one row costs `cost` multiply-adds for each of n tokens;
  // pieces are whole units, long ones when there are few tokens.
  template <class F>
  void spread_rows(int64_t rows, int64_t unit, int64_t cost, int64_t n, F&& f);

  QuantizedRows take_quantized(int64_t n, int64_t cols);
  void give_quantized(QuantizedRows& q) noexcept;
  void quantize(const float* rows, const QuantizedRows& q);
  StaticRows take_static(int64_t n, int64_t cols);
  void give_static(StaticRows& x) noexcept;
  // The value's codes of this scale, made when first asked for.
  const StaticRows& static_codes_of(CpuValue& x, float scale);
  // Scratch for products with w; called before threads start.
  void reserve_for(const Weight& w);
  Operand operand_for(const Weight& w, CpuValue& x);
  // Some rows of a matrix, begin a multiple of kTileRows if it lies in tiles, for n tokens; y is
  // that of the first of them. Results are rounded if the matrix asks for it.
  void multiply(const Weight& w, int64_t matrix, RowSpan rows, const Operand& x, int64_t n,
                const LinearOutput& y, int thread) noexcept;
  void multiply_rows(const Weight& w, const std::byte* matrix, RowSpan rows, const Operand& x,
                     const LinearOutput& y, int thread) noexcept;
  // Columns `rows` of gate = geglu(gate, up), both [n, width], rounded into q if it has memory.
  void activate(float* gate, const float* up, int64_t n, int64_t width, RowSpan rows,
                const QuantizedRows& q) noexcept;
  // Floats that every thread may use at once: scratch(thread)[0, n). What was there is lost.
  void reserve_scratch(int64_t floats_per_thread);
  float* scratch(int thread) noexcept;

  const RopeTurns& turns_for(const Rope& rope, std::span<const RowRef> rows);

  void store_kv(const CpuValue& k, const CpuValue& v, const AttentionCall& call);
  void plan_attention(const AttentionCall& call, int64_t unit_rows);
  bool split_segments() const;
  void attend_units(const CpuValue& q, CpuValue& out, const AttentionCall& call);
  void attend_split(const CpuValue& q, CpuValue& out, const AttentionCall& call);
  void attend_codes(const CpuValue& q, CpuValue& out, const AttentionCall& call);
  KeySegment load_segment(const AttentionUnit& unit, const AttentionCall& call, int64_t segment,
                          float* panel) const noexcept;

  struct ExpertWork;
  struct PooledOperand;
  template <class F>
  void spread_experts(const ExpertWork& work, int64_t rows, int64_t unit, int64_t cost, F&& f);
  void gather(const Operand& x, const ExpertWork& work, PooledOperand& in);
  Value expert_hidden(const Operand& in, const ExpertWork& work, const Weight& gate_up,
                      bool quantized);
  Value run_experts(const Operand& x, const ExpertWork& work, const Weight& gate_up,
                    const Weight& down);

  friend struct CpuValue;

  ThreadPool& pool_;
  const KernelTable& table_;
  BufferPool buffers_;
  int64_t live_values_ = 0;
  std::vector<float> params_;
  struct Scratch {
    float* data = nullptr;
    int64_t floats = 0;
  };
  std::vector<Scratch> scratch_;  // one per thread
  // Whether values are rounded per 32 elements before a product asks for it: what a model whose
  // activations have static scales would do in vain. Results are the same.
  bool quantizes_ahead_ = true;
  std::vector<std::unique_ptr<RopeTurns>> turns_;  // most recently used first
  std::vector<AttentionUnit> units_;
};

}  // namespace carat::kernels
