// Gemma 4's text model in double precision, written from the formulas alone: no Ops, no cache, no
// shared helpers. Slow and plain; the forward pass is compared with it.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "model/weights.h"

namespace carat::model::testing {

using Vec = std::vector<double>;
using Rows = std::vector<Vec>;

// A tensor as doubles. REQUIRES: F32.
inline Vec tensor(const Weights& w, TensorKind kind, int64_t layer = -1) {
  const kernels::Weight& t = w.at(kind, layer);
  std::vector<float> f(static_cast<size_t>(t.count * t.rows * t.cols));
  if (t.data != nullptr) {
    std::memcpy(f.data(), t.data, f.size() * 4);
  } else {
    t.file->read(t.file_offset, std::as_writable_bytes(std::span(f)));
  }
  return Vec(f.begin(), f.end());
}

inline Vec multiply(const Vec& m, const Vec& x, size_t begin_row, size_t rows) {
  Vec y(rows, 0.0);
  for (size_t o = 0; o < rows; ++o) {
    for (size_t i = 0; i < x.size(); ++i) y[o] += m[(begin_row + o) * x.size() + i] * x[i];
  }
  return y;
}
inline Vec multiply(const Vec& m, const Vec& x) { return multiply(m, x, 0, m.size() / x.size()); }

// One group, from `begin`, in place.
inline void normalize(Vec& x, size_t begin, size_t n, const Vec* weight) {
  double squares = 0;
  for (size_t i = 0; i < n; ++i) squares += x[begin + i] * x[begin + i];
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-6);
  for (size_t i = 0; i < n; ++i) x[begin + i] *= factor * (weight ? (*weight)[i] : 1.0);
}
inline Vec normed(Vec x, const Vec& weight) {
  normalize(x, 0, x.size(), &weight);
  return x;
}

inline double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

inline void rotate(Vec& x, size_t head_dim, double position, double theta, size_t turning) {
  for (size_t begin = 0; begin < x.size(); begin += head_dim) {
    for (size_t i = 0; i < turning; ++i) {
      const double angle =
          position * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      double& a = x[begin + i];
      double& b = x[begin + i + head_dim / 2];
      const double c = std::cos(angle), s = std::sin(angle), a0 = a;
      a = a0 * c - b * s;
      b = b * c + a0 * s;
    }
  }
}

inline Vec gated_unit(const Vec& gate, const Vec& up, const Vec& down, const Vec& x) {
  Vec h = multiply(gate, x);
  const Vec u = multiply(up, x);
  for (size_t i = 0; i < h.size(); ++i) h[i] = gelu(h[i]) * u[i];
  return multiply(down, h);
}

class ReferenceForward {
 public:
  explicit ReferenceForward(const Weights& weights) : w_(weights), c_(weights.config) {}

  // Logits of every position of one sequence.
  Rows run(const std::vector<int32_t>& tokens) {
    const Vec table = tensor(w_, TensorKind::kTokenEmbedding);
    const auto dim = static_cast<size_t>(c_.dim);
    Rows x;
    for (const int32_t id : tokens) {
      Vec e(dim);
      for (size_t i = 0; i < dim; ++i) {
        e[i] = table[static_cast<size_t>(id) * dim + i] * std::sqrt(static_cast<double>(dim));
      }
      x.push_back(e);
    }
    const Rows embedded = x;
    keys_.assign(static_cast<size_t>(c_.n_layers), {});
    values_ = keys_;
    for (int64_t l = 0; l < c_.n_layers; ++l) layer(l, tokens, embedded, x);
    Rows logits;
    const Vec norm = tensor(w_, TensorKind::kOutputNorm);
    for (const Vec& row : x) {
      Vec z = multiply(table, normed(row, norm));
      for (double& v : z) v = 30.0 * std::tanh(v / 30.0);
      logits.push_back(z);
    }
    return logits;
  }

 private:
  void layer(int64_t l, const std::vector<int32_t>& tokens, const Rows& embedded, Rows& x) {
    attention(l, x);
    const auto t = [&](TensorKind k) { return tensor(w_, k, l); };
    const Vec pre = t(TensorKind::kFfnNorm), post = t(TensorKind::kPostFfnNorm);
    const Vec gate = t(TensorKind::kGate), up = t(TensorKind::kUp), down = t(TensorKind::kDown);
    for (Vec& row : x) {
      Vec f = gated_unit(gate, up, down, normed(row, pre));
      if (c_.n_experts > 0) {
        f = normed(f, t(TensorKind::kPostDenseNorm));
        const Vec m = normed(experts(l, row), t(TensorKind::kPostExpertsNorm));
        for (size_t i = 0; i < f.size(); ++i) f[i] += m[i];
      }
      f = normed(f, post);
      for (size_t i = 0; i < row.size(); ++i) row[i] += f[i];
    }
    if (c_.ple_dim > 0) per_layer(l, tokens, embedded, x);
    const double scalar = t(TensorKind::kLayerScalar)[0];
    for (Vec& row : x) {
      for (double& v : row) v *= scalar;
    }
  }

  void attention(int64_t l, Rows& x) {
    const LayerConfig lc = c_.layer(l);
    const auto d = static_cast<size_t>(lc.head_dim);
    const double theta = lc.is_global ? 1e6 : 1e4;
    const size_t turning = lc.is_global ? d / 8 : d / 2;  // a quarter of the pairs
    const auto heads = static_cast<size_t>(c_.n_heads),
               kv_heads = static_cast<size_t>(lc.n_kv_heads);
    const Vec pre = tensor(w_, TensorKind::kAttnNorm, l);
    const Vec wq = tensor(w_, TensorKind::kQ, l), nq = tensor(w_, TensorKind::kQNorm, l);
    Rows q;
    for (size_t p = 0; p < x.size(); ++p) {
      const Vec h = normed(x[p], pre);
      Vec query = multiply(wq, h);
      for (size_t i = 0; i < heads; ++i) normalize(query, i * d, d, &nq);
      rotate(query, d, static_cast<double>(p), theta, turning);
      q.push_back(query);
      if (!lc.owns_kv) continue;
      const Vec nk = tensor(w_, TensorKind::kKNorm, l);
      Vec k = multiply(tensor(w_, TensorKind::kK, l), h);
      Vec v = lc.k_eq_v ? k : multiply(tensor(w_, TensorKind::kV, l), h);
      for (size_t i = 0; i < kv_heads; ++i) {
        normalize(k, i * d, d, &nk);
        normalize(v, i * d, d, nullptr);
      }
      rotate(k, d, static_cast<double>(p), theta, turning);
      keys_[static_cast<size_t>(l)].push_back(k);
      values_[static_cast<size_t>(l)].push_back(v);
    }
    // The owner: the last layer of this kind before the sharing ones.
    int64_t owner = l;
    if (!lc.owns_kv) {
      for (int64_t j = 0; j < c_.n_layers - c_.n_kv_shared_layers; ++j) {
        if (c_.is_global[static_cast<size_t>(j)] == lc.is_global) owner = j;
      }
    }
    const Vec wo = tensor(w_, TensorKind::kO, l), post = tensor(w_, TensorKind::kPostAttnNorm, l);
    for (size_t p = 0; p < x.size(); ++p) {
      Vec mixed(heads * d, 0.0);
      for (size_t h = 0; h < heads; ++h) {
        attend(q[p], h, h / (heads / kv_heads), d, p, lc.is_global ? 0 : c_.window,
               keys_[static_cast<size_t>(owner)], values_[static_cast<size_t>(owner)], mixed);
      }
      const Vec o = normed(multiply(wo, mixed), post);
      for (size_t i = 0; i < o.size(); ++i) x[p][i] += o[i];
    }
  }

  static void attend(const Vec& q, size_t head, size_t kv_head, size_t d, size_t p, int64_t window,
                     const Rows& keys, const Rows& values, Vec& out) {
    size_t first = 0;
    if (window > 0 && p + 1 > static_cast<size_t>(window)) {
      first = p + 1 - static_cast<size_t>(window);
    }
    Vec e;
    double sum = 0, largest = -1e300;
    for (size_t j = first; j <= p; ++j) {
      double dot = 0;
      for (size_t i = 0; i < d; ++i) dot += q[head * d + i] * keys[j][kv_head * d + i];
      e.push_back(dot);
      largest = std::max(largest, dot);
    }
    for (double& v : e) sum += v = std::exp(v - largest);
    for (size_t j = first; j <= p; ++j) {
      for (size_t i = 0; i < d; ++i) {
        out[head * d + i] += e[j - first] / sum * values[j][kv_head * d + i];
      }
    }
  }

  Vec experts(int64_t l, const Vec& r) {
    Vec z = r;
    normalize(z, 0, z.size(), nullptr);
    const Vec scale = tensor(w_, TensorKind::kRouterScale, l);
    for (size_t i = 0; i < z.size(); ++i) z[i] *= scale[i] / std::sqrt(static_cast<double>(c_.dim));
    Vec p = multiply(tensor(w_, TensorKind::kRouter, l), z);
    double total = 0;
    for (double& v : p) total += v = std::exp(v);
    for (double& v : p) v /= total;
    const Vec per_expert = tensor(w_, TensorKind::kExpertScale, l);
    const Vec gate_up = tensor(w_, TensorKind::kExpertsGateUp, l);
    const Vec down = tensor(w_, TensorKind::kExpertsDown, l);
    const Vec n = normed(r, tensor(w_, TensorKind::kExpertsNorm, l));
    const auto f = static_cast<size_t>(c_.expert_ffn_dim), dim = static_cast<size_t>(c_.dim);
    std::vector<size_t> best;
    double chosen = 0;
    for (int64_t k = 0; k < c_.n_experts_active; ++k) {
      size_t top = p.size();
      for (size_t e = 0; e < p.size(); ++e) {
        if (std::find(best.begin(), best.end(), e) != best.end()) continue;
        if (top == p.size() || p[e] > p[top]) top = e;
      }
      best.push_back(top);
      chosen += p[top];
    }
    Vec out(dim, 0.0);
    for (const size_t e : best) {
      const Vec g = multiply(gate_up, n, e * 2 * f, f), u = multiply(gate_up, n, e * 2 * f + f, f);
      Vec h(f);
      for (size_t i = 0; i < f; ++i) h[i] = gelu(g[i]) * u[i];
      const Vec y = multiply(down, h, e * dim, dim);
      for (size_t i = 0; i < dim; ++i) out[i] += p[e] / chosen * per_expert[e] * y[i];
    }
    return out;
  }

  void per_layer(int64_t l, const std::vector<int32_t>& tokens, const Rows& embedded, Rows& x) {
    const auto n = static_cast<size_t>(c_.ple_dim), begin = static_cast<size_t>(l) * n;
    const auto width = n * static_cast<size_t>(c_.n_layers);
    if (ple_table_.empty()) ple_table_ = tensor(w_, TensorKind::kPleTable);
    const Vec project = tensor(w_, TensorKind::kPleProjection);
    const Vec norm = tensor(w_, TensorKind::kPleProjectionNorm);
    const Vec gate = tensor(w_, TensorKind::kPleGate, l), out = tensor(w_, TensorKind::kPleOut, l);
    const Vec post = tensor(w_, TensorKind::kPlePostNorm, l);
    for (size_t p = 0; p < x.size(); ++p) {
      Vec ctx = multiply(project, embedded[p], begin, n);
      for (double& v : ctx) v /= std::sqrt(static_cast<double>(c_.dim));
      ctx = normed(ctx, norm);
      Vec g = multiply(gate, x[p]);
      for (size_t i = 0; i < n; ++i) {
        const double looked_up = ple_table_[static_cast<size_t>(tokens[p]) * width + begin + i] *
                                 std::sqrt(static_cast<double>(n));
        g[i] = gelu(g[i]) * (ctx[i] + looked_up) / std::sqrt(2.0);
      }
      const Vec y = normed(multiply(out, g), post);
      for (size_t i = 0; i < y.size(); ++i) x[p][i] += y[i];
    }
  }

  const Weights& w_;
  const Config& c_;
  std::vector<Rows> keys_, values_;  // [layer][position]
  Vec ple_table_;
};

}  // namespace carat::model::testing
