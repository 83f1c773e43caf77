// Matrix products and the mixture of experts of CpuOps.
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_ops_impl.h"
#include "kernels/scalar/route.h"

namespace carat::kernels {
namespace {

// Threads take whole groups of this many matrix rows, what a kernel works on at once.
constexpr int64_t kRowGroup = 8;

// Of quantized activations, per 32 elements.
constexpr int64_t kQuantizedBytes = 48;

bool is_quantized(DType dtype) { return info(dtype).block_elements > 1; }

WeightRows rows_of(const Weight& w, int64_t matrix, int64_t begin, int64_t end) {
  const int64_t row_size = w.row_size();
  return {w.data + (matrix * w.rows + begin) * row_size, row_size, end - begin, w.cols};
}

QuantizedRows row_range(const QuantizedRows& q, int64_t begin, int64_t n) {
  const int64_t blocks = q.cols / kActivationBlock;
  return {n,
          q.cols,
          q.codes + begin * q.cols,
          q.scales + begin * blocks,
          q.sums + begin * blocks,
          q.half_sums + begin * blocks * 2,
          q.scaled_sums + begin * blocks};
}

void copy_row(const QuantizedRows& from, int64_t row, const QuantizedRows& to, int64_t to_row) {
  const QuantizedRows a = row_range(from, row, 1), b = row_range(to, to_row, 1);
  const int64_t blocks = a.cols / kActivationBlock;
  std::copy_n(a.codes, a.cols, b.codes);
  std::copy_n(a.scales, blocks, b.scales);
  std::copy_n(a.sums, blocks, b.sums);
  std::copy_n(a.half_sums, 2 * blocks, b.half_sums);
  std::copy_n(a.scaled_sums, blocks, b.scaled_sums);
}

}  // namespace

// One block holds all five arrays, codes first: 32 + 4 * 4 bytes per 32 elements.
QuantizedRows CpuOps::take_quantized(int64_t n, int64_t cols) {
  const int64_t blocks = n * cols / kActivationBlock;
  auto* base = static_cast<std::byte*>(buffers_.take(blocks * kQuantizedBytes));
  QuantizedRows q{.n = n, .cols = cols};
  q.codes = reinterpret_cast<int8_t*>(base);
  q.scales = reinterpret_cast<float*>(base + blocks * 32);
  q.sums = reinterpret_cast<int32_t*>(base + blocks * 36);
  q.half_sums = reinterpret_cast<int16_t*>(base + blocks * 40);
  q.scaled_sums = reinterpret_cast<float*>(base + blocks * 44);
  return q;
}

void CpuOps::give_quantized(QuantizedRows& q) noexcept {
  buffers_.give(q.codes, q.n * q.cols / kActivationBlock * kQuantizedBytes);
  q = {};
}

void CpuOps::quantize(const float* rows, QuantizedRows& q) {
  spread(q.n, 1, q.cols * 2, [&](int64_t begin, int64_t end, int) {
    table_.quantize_rows(rows + begin * q.cols, row_range(q, begin, end - begin));
  });
}

CpuOps::Operand CpuOps::operand_for(const Weight& w, CpuValue& x) {
  Operand operand;
  if (is_quantized(w.dtype)) {
    if (!x.quantized.codes) {
      x.quantized = take_quantized(x.rows, x.cols);
      quantize(x.data, x.quantized);
    }
    operand.quantized = &x.quantized;
  } else {
    reserve_scratch(kFloatPanelRows * x.cols);
    operand.floats = {x.data, x.cols, x.rows};
  }
  return operand;
}

void CpuOps::multiply(DType dtype, const WeightRows& w, const Operand& x, const LinearOutput& y,
                      int thread) noexcept {
  switch (dtype) {
    case DType::kQ4_0:
      return table_.linear_q4_0(w, *x.quantized, y);
    case DType::kQ8_0:
      return table_.linear_q8_0(w, *x.quantized, y);
    case DType::kQ6_K:
      return table_.linear_q6_k(w, *x.quantized, y);
    case DType::kF32:
      return table_.linear_f32(w, x.floats, y, scratch(thread));
    case DType::kF16:
      return table_.linear_f16(w, x.floats, y, scratch(thread));
    case DType::kBF16:
      return table_.linear_bf16(w, x.floats, y, scratch(thread));
    default:
      CHECK(false);  // the loader accepts computable types only
  }
}

Value CpuOps::linear(const Value& x, const Weight& w) {
  CHECK(w.data && w.count == 1 && x->cols == w.cols);
  Value y = make(x->rows, w.rows);
  if (x->rows == 0) return y;
  const Operand operand = operand_for(w, cpu(x));
  float* out = cpu(y).data;
  spread(w.rows, kRowGroup, w.cols * x->rows, [&](int64_t begin, int64_t end, int thread) {
    multiply(w.dtype, rows_of(w, 0, begin, end), operand, {out + begin, w.rows}, thread);
  });
  return y;
}

Value CpuOps::gated(const Value& x, const Weight& gate, const Weight& up) {
  CHECK(gate.data && up.data && gate.count == 1 && up.count == 1);
  CHECK(gate.rows == up.rows && gate.cols == x->cols && up.cols == x->cols);
  const int64_t n = x->rows, width = gate.rows;
  Value y = make(n, width);
  if (n == 0) return y;
  Value hidden = make(n, width);
  // One of each kind if the two types differ; a shared cache if not.
  const Operand gate_operand = operand_for(gate, cpu(x));
  const Operand up_operand = operand_for(up, cpu(x));
  float *g = cpu(y).data, *u = cpu(hidden).data;
  spread(width, kRowGroup, gate.cols * n * 2, [&](int64_t begin, int64_t end, int thread) {
    multiply(gate.dtype, rows_of(gate, 0, begin, end), gate_operand, {g + begin, width}, thread);
    multiply(up.dtype, rows_of(up, 0, begin, end), up_operand, {u + begin, width}, thread);
    for (int64_t t = 0; t < n; ++t) {
      float* row = g + t * width + begin;
      table_.geglu(row, u + t * width + begin, end - begin, row);
    }
  });
  return y;
}

// -- mixture of experts --------------------------------------------------------------------------

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

// The (token, rank) pairs sorted by expert: pair i of the work is slots[i] = token * top_k + rank.
struct CpuOps::ExpertWork {
  int64_t top_k = 0;
  std::vector<int32_t> slots;    // [n * top_k], by expert, then by token
  std::vector<int32_t> experts;  // those with any pair, ascending
  std::vector<int32_t> begin;    // [experts + 1]: first pair of each
};

// Down-projected outputs of all pairs: slots[slot] = down_e(geglu(gate_e x, up_e x)), each [dim].
void CpuOps::run_experts(const QuantizedRows* xq, const float* xf, const ExpertWork& work,
                         const Weight& gate_up, const Weight& down, float* slots) {
  const int64_t n_pairs = static_cast<int64_t>(work.slots.size());
  const int64_t n_used = static_cast<int64_t>(work.experts.size());
  const int64_t dim = gate_up.cols, ffn = gate_up.rows / 2;
  const auto token_of = [&](int64_t pair) {
    return work.slots[static_cast<size_t>(pair)] / work.top_k;
  };

  // Inputs gathered by expert, so that every product sees consecutive rows.
  QuantizedRows inq{}, hiddenq{};
  Value in;
  if (xq) {
    inq = take_quantized(n_pairs, dim);
    for (int64_t i = 0; i < n_pairs; ++i) copy_row(*xq, token_of(i), inq, i);
  } else {
    in = make(n_pairs, dim);
    for (int64_t i = 0; i < n_pairs; ++i) {
      std::copy_n(xf + token_of(i) * dim, dim, cpu(in).data + i * dim);
    }
  }
  reserve_scratch(kFloatPanelRows * std::max(dim, ffn));

  Value gate = make(n_pairs, 2 * ffn), hidden = make(n_pairs, ffn), out = make(n_pairs, dim);
  // Threads share (expert, group of matrix rows) pairs.
  const auto for_experts = [&](const Weight& w, const QuantizedRows* q, const float* f, float* y) {
    const int64_t groups = ceil_div(w.rows, kRowGroup);
    const int64_t per_expert = std::max<int64_t>(1, n_pairs / n_used);
    spread(n_used * groups, 1, kRowGroup * w.cols * per_expert,
           [&](int64_t b, int64_t e, int thread) {
             while (b < e) {
               const size_t i = static_cast<size_t>(b / groups);
               const int64_t stop = std::min(e, (b / groups + 1) * groups);
               const int64_t row_begin = b % groups * kRowGroup;
               const int64_t row_end = std::min(w.rows, (stop - b + b % groups) * kRowGroup);
               const int64_t first = work.begin[i], n = work.begin[i + 1] - first;
               QuantizedRows part;
               Operand operand;
               if (q) {
                 part = row_range(*q, first, n);
                 operand.quantized = &part;
               } else {
                 operand.floats = {f + first * w.cols, w.cols, n};
               }
               multiply(w.dtype, rows_of(w, work.experts[i], row_begin, row_end), operand,
                        {y + first * w.rows + row_begin, w.rows}, thread);
               b = stop;
             }
           });
  };

  for_experts(gate_up, xq ? &inq : nullptr, in ? cpu(in).data : nullptr, cpu(gate).data);
  const bool quantized_down = is_quantized(down.dtype);
  if (quantized_down) hiddenq = take_quantized(n_pairs, ffn);
  spread(n_pairs, 1, ffn * 20, [&](int64_t b, int64_t e, int) {
    for (int64_t i = b; i < e; ++i) {
      const float* g = cpu(gate).data + i * 2 * ffn;
      table_.geglu(g, g + ffn, ffn, cpu(hidden).data + i * ffn);
    }
    if (quantized_down) {
      table_.quantize_rows(cpu(hidden).data + b * ffn, row_range(hiddenq, b, e - b));
    }
  });
  for_experts(down, quantized_down ? &hiddenq : nullptr, cpu(hidden).data, cpu(out).data);
  for (int64_t i = 0; i < n_pairs; ++i) {
    std::copy_n(cpu(out).data + i * dim, dim, slots + work.slots[static_cast<size_t>(i)] * dim);
  }
  if (inq.codes) give_quantized(inq);
  if (hiddenq.codes) give_quantized(hiddenq);
}

Value CpuOps::experts(const Value& x, const Route& route, const Weight& gate_up,
                      const Weight& down) {
  const int64_t n = x->rows, top_k = route.weights->cols, dim = x->cols;
  CHECK(gate_up.data && down.data && gate_up.count == down.count);
  CHECK(gate_up.cols == dim && gate_up.rows == 2 * down.cols && down.rows == dim);
  CHECK(route.weights->rows == n && static_cast<int64_t>(route.ids->size()) == n * top_k);
  CHECK(n * top_k <= INT32_MAX);
  Value y = make(n, dim);
  if (n == 0) return y;

  ExpertWork work;
  work.top_k = top_k;
  std::vector<int32_t> count(static_cast<size_t>(gate_up.count) + 1, 0);
  for (int32_t e : *route.ids) {
    CHECK(e >= 0 && e < gate_up.count);
    ++count[static_cast<size_t>(e) + 1];
  }
  for (size_t e = 0; e + 1 < count.size(); ++e) {
    count[e + 1] += count[e];
    if (count[e + 1] == count[e]) continue;
    work.experts.push_back(static_cast<int32_t>(e));
    work.begin.push_back(count[e]);
  }
  work.begin.push_back(count.back());
  work.slots.resize(route.ids->size());
  for (size_t slot = 0; slot < route.ids->size(); ++slot) {
    const size_t e = static_cast<size_t>((*route.ids)[slot]);
    work.slots[static_cast<size_t>(count[e]++)] = static_cast<int32_t>(slot);
  }

  Value slots = make(n * top_k, dim);
  const Operand operand = operand_for(gate_up, cpu(x));
  run_experts(operand.quantized, operand.floats.data, work, gate_up, down, cpu(slots).data);

  const float* weights = cpu(route.weights).data;
  float* out = cpu(y).data;
  spread(n, 1, top_k * dim, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      std::fill_n(out + t * dim, dim, 0.0f);
      for (int64_t r = 0; r < top_k; ++r) {
        const int64_t slot = t * top_k + r;
        table_.multiply_add(cpu(slots).data + slot * dim, dim, weights[slot], out + t * dim);
      }
    }
  });
  return y;
}

}  // namespace carat::kernels
