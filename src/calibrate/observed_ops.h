// Ops that show the inputs of products to somebody and compute what the Ops below compute, bit for
// bit: a model that runs on them says what its matrices are fed.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace carat::calibrate {

// Used by one thread, between the products.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // Whether inputs of this matrix are wanted now: others are not even copied.
  virtual bool wants(const kernels::Weight& w) const = 0;
  // Rows [n, w.cols] that matrix number `matrix` of w was multiplied with; 0 but for experts, whose
  // rows are those routed to them, in ascending order of tokens. n > 0.
  virtual void observe(const kernels::Weight& w, int64_t matrix, std::span<const float> rows) = 0;
};

// A matrix that is multiplied in pieces of rows, all with the same input, is seen once, with the
// piece that begins at row 0. Experts' inner values are computed a second time to be seen.
class ObservedOps final : public kernels::Ops {
 public:
  // Both outlive it. Values are those of `inner`.
  ObservedOps(kernels::Ops& inner, InputObserver& observer) : inner_(inner), observer_(observer) {}

  // Shows x as an input of w without a product, for one that nobody needs.
  void observe(const kernels::Value& x, const kernels::Weight& w, int64_t matrix = 0);

  kernels::Value input(int64_t rows, int64_t cols, std::span<const float> values) override;
  void read(const kernels::Value& x, std::span<float> out) override;
  kernels::Value embed(const kernels::Weight& table, std::span<const int32_t> ids,
                       int64_t col_begin, int64_t cols, float scale) override;
  kernels::Value take_rows(const kernels::Value& x, std::span<const int32_t> rows) override;
  kernels::Value linear(const kernels::Value& x, const kernels::Weight& w) override;
  kernels::Value rms_norm(const kernels::Value& x, const kernels::Weight* w, int64_t group,
                          float eps) override;
  kernels::Value rope(const kernels::Value& x, const kernels::Rope& rope,
                      std::span<const kernels::RowRef> rows) override;
  kernels::Value add(const kernels::Value& a, const kernels::Value& b) override;
  kernels::Value scale(const kernels::Value& x, float factor) override;
  kernels::Value scale_by(const kernels::Value& x, const kernels::Weight& scalar) override;
  kernels::Value geglu(const kernels::Value& gate, const kernels::Value& up) override;
  kernels::Value softcap(const kernels::Value& x, float cap) override;
  kernels::Value attention(const kernels::Value& q, const kernels::Value& k,
                           const kernels::Value& v, const kernels::AttentionCall& call) override;
  kernels::Route route(const kernels::Value& logits, const kernels::Weight& expert_scale,
                       int64_t top_k) override;
  kernels::Value experts(const kernels::Value& x, const kernels::Route& route,
                         const kernels::Weight& gate_up, const kernels::Weight& down) override;
  kernels::Value add_norm(const kernels::Value& x, const kernels::Value& y,
                          const kernels::Weight& w, float eps) override;
  kernels::Value gated(const kernels::Value& x, const kernels::Weight& gate,
                       const kernels::Weight& up) override;

 private:
  std::span<const float> copy(const kernels::Value& x);
  void observe_expert(const kernels::Value& x, int64_t expert, const kernels::Weight& gate_up,
                      const kernels::Weight& down);

  kernels::Ops& inner_;
  InputObserver& observer_;
  std::vector<float> rows_;
};

}  // namespace carat::calibrate
