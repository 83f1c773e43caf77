// Mixture of experts on the tape: the rows that go to an expert are gathered, multiplied together,
// and added back in router rank order.
#include <cmath>

#include "train/tape_impl.h"

namespace carat::train {

template <class T>
kernels::Route Tape<T>::route(const Value& logits, const Weight& expert_scale, int64_t top_k) {
  const int64_t n = logits->rows, n_experts = logits->cols;
  CHECK(top_k >= 1 && top_k <= n_experts);
  CHECK(expert_scale.rows * expert_scale.cols == n_experts);
  const Value y = make(n, top_k);
  auto ids = std::make_shared<std::vector<int32_t>>(static_cast<size_t>(n * top_k));
  // The chosen experts' probabilities over their sum: the softmax of their logits alone.
  T* chosen = arena_.template get<T>(n * top_k);
  const T* scales = parameter(expert_scale);
  for (int64_t t = 0; t < n; ++t) {
    const T* x = node(logits)->value + t * n_experts;
    int32_t* id = ids->data() + t * top_k;
    T* c = chosen + t * top_k;
    for (int64_t r = 0; r < top_k; ++r) {
      int32_t best = -1;
      for (int32_t e = 0; e < n_experts; ++e) {
        if (std::find(id, id + r, e) == id + r && (best < 0 || x[e] > x[best])) best = e;
      }
      id[r] = best;
      c[r] = x[best];
    }
    loops_.softmax(top_k, c);
    for (int64_t r = 0; r < top_k; ++r) node(y)->value[t * top_k + r] = c[r] * scales[id[r]];
  }
  record([this, logits, expert_scale, top_k, n, n_experts, y, ids, chosen] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(logits));
    T* dscale = parameter_gradient(expert_scale);
    const T* s = parameter(expert_scale);
    for (int64_t t = 0; t < n; ++t) {
      const int32_t* id = ids->data() + t * top_k;
      const T* c = chosen + t * top_k;
      const T* g = dy + t * top_k;
      T mean = 0;
      for (int64_t r = 0; r < top_k; ++r) mean += c[r] * g[r] * s[id[r]];
      for (int64_t r = 0; r < top_k; ++r) {
        dscale[id[r]] += g[r] * c[r];
        dx[t * n_experts + id[r]] += c[r] * (g[r] * s[id[r]] - mean);
      }
    }
  });
  return {y, std::move(ids)};
}

template <class T>
struct Tape<T>::Experts {
  Value x, weights, y;
  std::shared_ptr<const std::vector<int32_t>> ids;
  Weight gate_up, down;
  int64_t n, top_k, dim, ffn, n_experts;
  std::vector<int64_t> first;    // [n_experts + 1] slots of an expert
  std::vector<int64_t> slot_of;  // [n * top_k]
  std::vector<int64_t> row_of;   // [n * top_k] by slot
  // By slot: what went in, gate and up, their product, what came out.
  T *in, *hidden, *product, *out;
};

template <class T>
kernels::Value Tape<T>::experts(const Value& x, const kernels::Route& route, const Weight& gate_up,
                                const Weight& down) {
  for (const Weight* w : {&gate_up, &down}) CHECK(w->input_scale == 0 && w->output_scale == 0);
  auto e = std::make_shared<Experts>();
  e->x = x;
  e->weights = route.weights;
  e->ids = route.ids;
  e->gate_up = gate_up;
  e->down = down;
  e->n = x->rows;
  e->top_k = route.weights->cols;
  e->dim = gate_up.cols;
  e->ffn = down.cols;
  e->n_experts = gate_up.count;
  CHECK(x->cols == e->dim && down.rows == e->dim && gate_up.rows == 2 * e->ffn);
  CHECK(down.count == e->n_experts && route.weights->rows == e->n);
  CHECK(static_cast<int64_t>(e->ids->size()) == e->n * e->top_k);

  const int64_t slots = e->n * e->top_k;
  e->first.assign(static_cast<size_t>(e->n_experts) + 1, 0);
  for (const int32_t id : *e->ids) {
    CHECK(id >= 0 && id < e->n_experts);
    ++e->first[static_cast<size_t>(id) + 1];
  }
  for (size_t i = 1; i < e->first.size(); ++i) e->first[i] += e->first[i - 1];
  std::vector<int64_t> next(e->first.begin(), e->first.end() - 1);
  e->slot_of.resize(static_cast<size_t>(slots));
  e->row_of.resize(static_cast<size_t>(slots));
  for (int64_t i = 0; i < slots; ++i) {
    const int64_t slot = next[static_cast<size_t>((*e->ids)[static_cast<size_t>(i)])]++;
    e->slot_of[static_cast<size_t>(i)] = slot;
    e->row_of[static_cast<size_t>(slot)] = i / e->top_k;
  }
  e->in = arena_.template get<T>(slots * e->dim);
  e->hidden = arena_.template get<T>(slots * 2 * e->ffn);
  e->product = arena_.template get<T>(slots * e->ffn);
  e->out = arena_.template get<T>(slots * e->dim);
  e->y = make(e->n, e->dim);
  mix(*e);
  record([this, e] { mix_backward(*e); });
  return e->y;
}

template <class T>
void Tape<T>::mix(const Experts& e) {
  const int64_t slots = e.n * e.top_k;
  each(slots, row_grain(e.dim), [&](int64_t s) {
    std::copy_n(node(e.x)->value + e.row_of[static_cast<size_t>(s)] * e.dim, e.dim,
                e.in + s * e.dim);
  });
  const T* gate_up = parameter(e.gate_up);
  const T* down = parameter(e.down);
  for (int64_t i = 0; i < e.n_experts; ++i) {
    const int64_t s = e.first[static_cast<size_t>(i)], m = e.first[static_cast<size_t>(i) + 1] - s;
    if (m == 0) continue;
    gemm(false, true, m, 2 * e.ffn, e.dim, e.in + s * e.dim, gate_up + i * 2 * e.ffn * e.dim, T(0),
         e.hidden + s * 2 * e.ffn, &pool_);
    each(m, row_grain(e.ffn), [&](int64_t r) {
      const T* h = e.hidden + (s + r) * 2 * e.ffn;
      loops_.geglu(e.ffn, h, h + e.ffn, e.product + (s + r) * e.ffn);
    });
    gemm(false, true, m, e.dim, e.ffn, e.product + s * e.ffn, down + i * e.dim * e.ffn, T(0),
         e.out + s * e.dim, &pool_);
  }
  each(e.n, row_grain(e.dim), [&](int64_t t) {
    T* y = node(e.y)->value + t * e.dim;
    std::fill(y, y + e.dim, T(0));
    for (int64_t i = t * e.top_k; i < (t + 1) * e.top_k; ++i) {
      loops_.axpy(e.dim, node(e.weights)->value[i],
                  e.out + e.slot_of[static_cast<size_t>(i)] * e.dim, y);
    }
  });
}

template <class T>
void Tape<T>::mix_backward(const Experts& e) {
  const T* dy = node(e.y)->gradient;
  if (!dy) return;
  const int64_t slots = e.n * e.top_k;
  T* dx = gradient_of(node(e.x));
  T* dw = gradient_of(node(e.weights));
  T* dout = arena_.template get<T>(slots * e.dim);
  T* dproduct = arena_.template get<T>(slots * e.ffn);
  T* dhidden = arena_.template get<T>(slots * 2 * e.ffn);
  T* din = arena_.template get<T>(slots * e.dim);
  each(e.n, row_grain(e.dim), [&](int64_t t) {
    for (int64_t i = t * e.top_k; i < (t + 1) * e.top_k; ++i) {
      const int64_t s = e.slot_of[static_cast<size_t>(i)];
      loops_.scale(e.dim, node(e.weights)->value[i], dy + t * e.dim, dout + s * e.dim);
      dw[i] += loops_.dot(e.dim, e.out + s * e.dim, dy + t * e.dim);
    }
  });
  const T* gate_up = parameter(e.gate_up);
  const T* down = parameter(e.down);
  T* dgate_up = parameter_gradient(e.gate_up);
  T* ddown = parameter_gradient(e.down);
  for (int64_t i = 0; i < e.n_experts; ++i) {
    const int64_t s = e.first[static_cast<size_t>(i)], m = e.first[static_cast<size_t>(i) + 1] - s;
    if (m == 0) continue;
    const int64_t up_at = i * 2 * e.ffn * e.dim, down_at = i * e.dim * e.ffn;
    T* dp = dproduct + s * e.ffn;
    T* dh = dhidden + s * 2 * e.ffn;
    gemm(false, false, m, e.ffn, e.dim, dout + s * e.dim, down + down_at, T(0), dp, &pool_);
    gemm(true, false, e.dim, e.ffn, m, dout + s * e.dim, e.product + s * e.ffn, T(1),
         ddown + down_at, &pool_);
    each(m, row_grain(e.ffn), [&](int64_t r) {
      const T* h = e.hidden + (s + r) * 2 * e.ffn;
      T* d = dh + r * 2 * e.ffn;
      std::fill(d, d + 2 * e.ffn, T(0));
      loops_.geglu_backward(e.ffn, h, h + e.ffn, dp + r * e.ffn, d, d + e.ffn);
    });
    gemm(false, false, m, e.dim, 2 * e.ffn, dh, gate_up + up_at, T(0), din + s * e.dim, &pool_);
    gemm(true, false, 2 * e.ffn, e.dim, m, dh, e.in + s * e.dim, T(1), dgate_up + up_at, &pool_);
  }
  each(e.n, row_grain(e.dim), [&](int64_t t) {
    for (int64_t i = t * e.top_k; i < (t + 1) * e.top_k; ++i) {
      loops_.axpy(e.dim, T(1), din + e.slot_of[static_cast<size_t>(i)] * e.dim, dx + t * e.dim);
    }
  });
}

template kernels::Route Tape<float>::route(const Value&, const Weight&, int64_t);
template kernels::Route Tape<double>::route(const Value&, const Weight&, int64_t);
template kernels::Value Tape<float>::experts(const Value&, const kernels::Route&, const Weight&,
                                             const Weight&);
template kernels::Value Tape<double>::experts(const Value&, const kernels::Route&, const Weight&,
                                              const Weight&);

}  // namespace carat::train
