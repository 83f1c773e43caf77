// The mixture of experts of CpuOps.
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_ops_impl.h"
#include "kernels/scalar/route.h"

namespace carat::kernels {
namespace {

void copy_row(const QuantizedRows& from, int64_t row, const QuantizedRows& to, int64_t to_row) {
  const QuantizedRows a = row_range(from, row, 1), b = row_range(to, to_row, 1);
  const int64_t blocks = a.cols / kActivationBlock;
  std::copy_n(a.codes, a.cols, b.codes);
  std::copy_n(a.scales, blocks, b.scales);
  std::copy_n(a.sums, blocks, b.sums);
  std::copy_n(a.half_sums, 2 * blocks, b.half_sums);
  std::copy_n(a.scaled_sums, blocks, b.scaled_sums);
}

void copy_row(const StaticRows& from, int64_t row, const StaticRows& to, int64_t to_row) {
  std::copy_n(from.codes + row * from.cols, from.cols, to.codes + to_row * to.cols);
  to.scales[to_row] = from.scales[row];
  to.sums[to_row] = from.sums[row];
}

}  // namespace

Route CpuOps::route(const Value& logits, const Weight& expert_scale, int64_t top_k) {
  const int64_t n = logits->rows, n_experts = logits->cols;
  CHECK(top_k >= 1 && top_k <= n_experts && expert_scale.rows * expert_scale.cols == n_experts);
  const float* scales = floats_of(expert_scale);
  Route route;
  route.weights = make(n, top_k);
  auto ids = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(n * top_k));
  reserve_scratch(n_experts);
  spread(n, 1, n_experts * 64, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t t = begin; t < end; ++t) {
      scalar::route_row(cpu(logits).data + t * n_experts, n_experts, scales, top_k, scratch(thread),
                        cpu(route.weights).data + t * top_k, ids->data() + t * top_k);
    }
  });
  route.ids = std::move(ids);
  return route;
}

// The (token, rank) pairs sorted by expert, then by token; slot = token * top_k + rank.
struct CpuOps::ExpertWork {
  int64_t top_k = 0;
  std::vector<int32_t> slots;    // [n * top_k]: slot of each pair
  std::vector<int32_t> pairs;    // [n * top_k]: pair of each slot
  std::vector<int32_t> experts;  // those with any pair, ascending
  std::vector<int32_t> begin;    // [experts + 1]: first pair of each

  ExpertWork(const std::vector<int32_t>& ids, int64_t k, int64_t n_experts) : top_k(k) {
    std::vector<int32_t> count(static_cast<size_t>(n_experts) + 1, 0);
    for (int32_t e : ids) {
      CHECK(e >= 0 && e < n_experts);
      ++count[static_cast<size_t>(e) + 1];
    }
    for (size_t e = 0; e + 1 < count.size(); ++e) {
      count[e + 1] += count[e];
      if (count[e + 1] == count[e]) continue;
      experts.push_back(static_cast<int32_t>(e));
      begin.push_back(count[e]);
    }
    begin.push_back(count.back());
    slots.resize(ids.size());
    pairs.resize(ids.size());
    for (size_t slot = 0; slot < ids.size(); ++slot) {
      const int32_t pair = count[static_cast<size_t>(ids[slot])]++;
      slots[static_cast<size_t>(pair)] = static_cast<int32_t>(slot);
      pairs[slot] = pair;
    }
  }
  int64_t n_pairs() const { return static_cast<int64_t>(slots.size()); }
  int64_t n_used() const { return static_cast<int64_t>(experts.size()); }
  int64_t token_of(int64_t pair) const { return slots[static_cast<size_t>(pair)] / top_k; }
};

// Each expert's rows [0, rows) in pieces of whole units: f(place in work.experts, rows, thread).
template <class F>
void CpuOps::spread_experts(const ExpertWork& work, int64_t rows, int64_t unit, int64_t cost,
                            F&& f) {
  const int64_t padded = round_up(rows, unit);
  const int64_t per_expert = ceil_div(work.n_pairs(), work.n_used());
  spread_rows(work.n_used() * padded, unit, cost, per_expert, [&](RowSpan all, int thread) {
    while (all.begin < all.end) {
      const int64_t i = all.begin / padded, stop = std::min(all.end, (i + 1) * padded);
      const RowSpan part = {all.begin - i * padded, std::min(rows, stop - i * padded)};
      f(static_cast<size_t>(i), part, thread);
      all.begin = stop;
    }
  });
}

// The rows of x gathered by expert, so that every product sees consecutive rows.
void CpuOps::gather(const Operand& x, const ExpertWork& work, PooledOperand& in) {
  const int64_t n = work.n_pairs(), cols = x.floats.stride;
  Operand& to = in.operand;
  if (x.quantized.codes) {
    to.quantized = take_quantized(n, x.quantized.cols);
  } else if (x.codes.codes) {
    to.codes = take_static(n, x.codes.cols);
  } else {
    in.floats = make(n, cols);
    to.floats = {cpu(in.floats).data, cols, n};
  }
  spread(n, 1, x.quantized.cols + x.codes.cols + cols, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = work.token_of(i);
      if (x.quantized.codes) {
        copy_row(x.quantized, row, to.quantized, i);
      } else if (x.codes.codes) {
        copy_row(x.codes, row, to.codes, i);
      } else {
        std::copy_n(x.floats.data + row * cols, cols, cpu(in.floats).data + i * cols);
      }
    }
  });
}

// geglu(gate_e x, up_e x) of all pairs.
Value CpuOps::expert_hidden(const Operand& in, const ExpertWork& work, const Weight& gate_up,
                            bool quantized) {
  const int64_t ffn = gate_up.rows / 2, n_pairs = work.n_pairs();
  Value hidden = make(n_pairs, ffn), up = make(n_pairs, ffn);
  QuantizedRows& q = cpu(hidden).quantized;
  if (quantized) q = take_quantized(n_pairs, ffn);
  float *g = cpu(hidden).data, *u = cpu(up).data;
  spread_experts(
      work, ffn, kActivationBlock, 2 * gate_up.cols, [&](size_t i, RowSpan rows, int thread) {
        const int64_t first = work.begin[i], n = work.begin[i + 1] - first;
        const Operand x = in.rows(first, n);
        const int64_t e = work.experts[i], at = first * ffn;
        multiply(gate_up, e, rows, x, n, {g + at + rows.begin, ffn}, thread);
        multiply(gate_up, e, {ffn + rows.begin, ffn + rows.end}, x, n, {u + at + rows.begin, ffn},
                 thread);
        activate(g + at, u + at, n, ffn, rows, q.codes ? row_range(q, first, n) : QuantizedRows{});
      });
  return hidden;
}

// Down-projected outputs of all pairs: [n_pairs, dim].
Value CpuOps::run_experts(const Operand& x, const ExpertWork& work, const Weight& gate_up,
                          const Weight& down) {
  const int64_t dim = down.rows;
  Value hidden;
  {
    PooledOperand in(*this);
    gather(x, work, in);
    hidden = expert_hidden(in.operand, work, gate_up, down.tiles() && !is_static(down));
  }
  const Operand in = operand_for(down, cpu(hidden));
  Value out = make(work.n_pairs(), dim);
  float* y = cpu(out).data;
  spread_experts(work, dim, kTileRows, down.cols, [&](size_t i, RowSpan rows, int thread) {
    const int64_t first = work.begin[i], n = work.begin[i + 1] - first;
    multiply(down, work.experts[i], rows, in.rows(first, n), n, {y + first * dim + rows.begin, dim},
             thread);
  });
  return out;
}

Value CpuOps::experts(const Value& x, const Route& route, const Weight& gate_up,
                      const Weight& down) {
  const int64_t n = x->rows, top_k = route.weights->cols, dim = x->cols;
  CHECK(gate_up.data && down.data && gate_up.count == down.count);
  CHECK(gate_up.cols == dim && gate_up.rows == 2 * down.cols && down.rows == dim);
  CHECK(gate_up.layout == Layout::kRows || down.cols % kTileRows == 0);
  CHECK(route.weights->rows == n && static_cast<int64_t>(route.ids->size()) == n * top_k);
  CHECK(n * top_k <= INT32_MAX);
  Value y = make(n, dim);
  if (n == 0) return y;

  const ExpertWork work(*route.ids, top_k, gate_up.count);
  const Value out = run_experts(operand_for(gate_up, cpu(x)), work, gate_up, down);
  const float* weights = cpu(route.weights).data;
  float* sums = cpu(y).data;
  spread(n, 1, top_k * dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      std::fill_n(sums + t * dim, dim, 0.0f);
      for (int64_t slot = t * top_k; slot < (t + 1) * top_k; ++slot) {
        const float* part = cpu(out).data + work.pairs[static_cast<size_t>(slot)] * dim;
        table_.multiply_add(part, dim, weights[slot], sums + t * dim);
      }
    }
  });
  return y;
}

}  // namespace carat::kernels
