// Small models and gradient checks for the tape's tests.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "base/rng.h"
#include "model/forward.h"
#include "train/tape.h"

namespace carat::train::testing {

// Parameters of an op under test, with a flat array of values. What an op reads as a Value is made
// by embed() from a table, so that its gradient is a parameter's too.
struct Bench {
  std::vector<kernels::Weight> weights;
  ParameterLayout layout;
  std::vector<double> values;

  struct Size {
    int64_t count, rows, cols;
  };
  explicit Bench(const std::vector<Size>& sizes, uint64_t seed = 1, double spread = 1.0) {
    for (const Size& s : sizes) {
      kernels::Weight w;
      w.id = static_cast<int32_t>(weights.size());
      w.count = s.count;
      w.rows = s.rows;
      w.cols = s.cols;
      weights.push_back(w);
    }
    layout = ParameterLayout(weights, std::vector<bool>(weights.size(), true));
    values.assign(static_cast<size_t>(layout.total()), 0.0);
    Rng rng(seed);
    for (const auto& e : layout.entries()) {
      for (int64_t i = 0; i < e.size; ++i) {
        // Exact in float, so that float and double see the same parameters.
        values[static_cast<size_t>(e.offset + i)] = static_cast<float>(spread * rng.normal());
      }
    }
  }
};

// All rows of a table, as a value.
inline kernels::Value table_rows(kernels::Ops& ops, const kernels::Weight& table) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < table.rows; ++i) ids.push_back(i);
  return ops.embed(table, ids, 0, table.cols, 1.0f);
}

// n_sequences sequences of n rows each, one after another, positions from 0.
inline std::vector<kernels::RowRef> rows_of(int32_t n_sequences, int32_t n) {
  std::vector<kernels::RowRef> rows;
  for (int32_t s = 0; s < n_sequences; ++s) {
    for (int32_t p = 0; p < n; ++p) rows.push_back({s, p});
  }
  return rows;
}

inline std::vector<int32_t> iota(int64_t n) {
  std::vector<int32_t> v;
  for (int32_t i = 0; i < n; ++i) v.push_back(i);
  return v;
}

enum class Kind { kSmall, kKEqualsV, kMixture };

// A model of each kind with every feature of the family and a few thousand parameters.
inline model::Config small_config(Kind kind) {
  model::Config c;
  c.dim = 32;
  c.n_layers = 4;
  c.n_heads = 4;
  c.vocab_size = 48;
  c.max_seq_len = 64;
  c.window = 5;
  c.head_dim_local = 8;
  c.head_dim_global = 16;
  c.n_kv_heads_local = 2;
  c.n_kv_heads_global = 1;
  c.ffn_dim = 32;
  c.is_global = {false, true, false, true};
  if (kind == Kind::kSmall) {
    c.n_kv_shared_layers = 2;
    c.n_kv_heads_local = c.n_kv_heads_global = 1;
    c.double_wide_ffn = true;
    c.ple_dim = 32;
    c.ple_vocab_size = 48;
  } else {
    c.k_eq_v = true;
  }
  if (kind == Kind::kMixture) {
    c.n_experts = 6;
    c.n_experts_active = 2;
    c.expert_ffn_dim = 32;
  }
  c.validate();
  return c;
}

// Values near a trained model's: norms about 1, matrices that keep the scale. Exact in float.
inline std::vector<double> random_model(const model::Weights& w, const ParameterLayout& layout,
                                        uint64_t seed) {
  std::vector<double> values(static_cast<size_t>(layout.total()));
  Rng rng(seed);
  for (size_t id = 0; id < w.all.size(); ++id) {
    const auto& e = layout[static_cast<int64_t>(id)];
    const bool keep = w.all[id].rows == 1;
    const double spread = 1.0 / std::sqrt(static_cast<double>(e.cols));
    for (int64_t i = 0; i < e.size; ++i) {
      const double z = rng.normal();
      values[static_cast<size_t>(e.offset + i)] =
          static_cast<float>(keep ? 1.0 + 0.2 * z : spread * z);
    }
  }
  return values;
}

template <class T>
std::vector<T> cast(const std::vector<double>& v) {
  return std::vector<T>(v.begin(), v.end());
}

// Mean loss of a model on `tokens` (sequences of n rows), each predicting the next; adds gradients.
struct ModelLoss {
  model::Weights weights;
  ParameterLayout layout;
  std::vector<int32_t> tokens, targets, wanted;
  std::vector<kernels::RowRef> rows;

  ModelLoss(const model::Config& config, int32_t n_sequences, int32_t n, uint64_t seed)
      : weights(shapes_only(config)), layout(weights) {
    Rng rng(seed);
    rows = rows_of(n_sequences, n);
    wanted = iota(static_cast<int64_t>(rows.size()));
    for (size_t i = 0; i < rows.size(); ++i) {
      tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(config.vocab_size))));
      targets.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(config.vocab_size))));
    }
  }
  model::Step step() const {
    model::Step s;
    s.tokens = tokens;
    s.rows = rows;
    s.wanted = wanted;
    return s;
  }
  template <class T>
  double operator()(const std::vector<T>& values, std::type_identity_t<std::vector<T>>* gradients,
                    ThreadPool& pool) const {
    Tape<T> tape(layout, values.data(), gradients ? gradients->data() : nullptr, pool);
    const kernels::Value logits = model::forward(weights, tape, step());
    const double weight = 1.0 / static_cast<double>(rows.size());
    const double loss = tape.cross_entropy(logits, targets, weight) * weight;
    if (gradients) tape.backward();
    return loss;
  }
};

}  // namespace carat::train::testing
