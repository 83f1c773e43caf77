// The tape: an Ops that keeps every value and can run the recorded calls backwards.
//
// One step: forward calls (model::forward), a loss, backward(), then reset(). Parameters come from
// a flat array, not from Weight::data: Weight::id and row_begin say where. Gradients of parameters
// are added to a second flat array of the same layout.
//
// Static rounding (Weight::input_scale and output_scale, AttentionCall::k_scale and v_scale) is
// done on floats: the oracle of inference in integers. Gradients pass straight through, except
// where a value is clipped: nothing passes there. Weights are what the flat array says, never
// rounded.
//
// Formulas are those of kernels/ops.h; sums run in an order of their own, which depends neither on
// the number of threads nor on what else is in the batch's memory. T is float (fast) or double
// (for proving gradients).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ops.h"
#include "train/arena.h"
#include "train/loops.h"
#include "train/parameters.h"

namespace carat::train {

template <class T>
class Tape final : public kernels::Ops {
 public:
  using Value = kernels::Value;
  using Weight = kernels::Weight;

  // `values` and `gradients` hold layout.total() elements and outlive the tape's use of them.
  // Without gradients nothing is recorded: a frozen model. `pool` is used by one thread at a time.
  Tape(const ParameterLayout& layout, const T* values, T* gradients, ThreadPool& pool);
  ~Tape() override;

  // -- Ops ---------------------------------------------------------------------------------------
  Value input(int64_t rows, int64_t cols, std::span<const float> values) override;
  void read(const Value& x, std::span<float> out) override;
  Value embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin, int64_t cols,
              float scale) override;
  Value take_rows(const Value& x, std::span<const int32_t> rows) override;
  Value linear(const Value& x, const Weight& w) override;
  Value rms_norm(const Value& x, const Weight* w, int64_t group, float eps) override;
  Value rope(const Value& x, const kernels::Rope& rope,
             std::span<const kernels::RowRef> rows) override;
  Value add(const Value& a, const Value& b) override;
  Value scale(const Value& x, float factor) override;
  Value scale_by(const Value& x, const Weight& scalar) override;
  Value geglu(const Value& gate, const Value& up) override;
  Value softcap(const Value& x, float cap) override;
  // k_scale and v_scale round what this call's k and v bring. REQUIRES: rows of a sequence stand
  // together, at consecutive positions; keys before this call do not exist (call.sequences is
  // ignored).
  Value attention(const Value& q, const Value& k, const Value& v,
                  const kernels::AttentionCall& call) override;
  // The selection of experts counts as constant; the gradient runs through their weights.
  kernels::Route route(const Value& logits, const Weight& expert_scale, int64_t top_k) override;
  // REQUIRES: no static rounding; no checkpoint asks for it in experts.
  Value experts(const Value& x, const kernels::Route& route, const Weight& gate_up,
                const Weight& down) override;

  // From now on what products with quantized matrices (Weight::tiles) without an input_scale read
  // is rounded to int8 per 32 elements, as inference does. Off at first: a model under training
  // knows nothing of it.
  void round_like_inference() { rounds_blocks_ = true; }

  // -- losses: return the sum over rows, and add weight times its gradient to the logits'
  // ----------

  // Sum of -log softmax(logits)[target]; rows with a negative target count 0.
  double cross_entropy(const Value& logits, std::span<const int32_t> targets, double weight);
  // Sum of KL(softmax(teacher) || softmax(logits)), teacher [rows, cols] row-major.
  double distillation(const Value& logits, const T* teacher, double weight);
  // Sum of y[i] * direction[i]: any linear function of a result, for tests.
  double project(const Value& y, std::span<const T> direction, double weight);

  // Runs all recorded calls backwards, once.
  void backward();

  // Forgets all values, keeps the memory. No Value may be used afterwards.
  void reset();

  const T* data(const Value& x) const;
  // Gradient of a value after backward(); nullptr if nothing depended on it.
  const T* gradient(const Value& x) const;
  // Floating-point operations of the matrix products so far, both directions.
  double flops() const { return flops_; }
  // Of values and gradients, kept from step to step.
  int64_t bytes() const { return arena_.reserved(); }

  // A loop over [0, n) on the pool, `f(i)`; pieces of `grain` indices.
  template <class F>
  void each(int64_t n, int64_t grain, F&& f) {
    pool_.parallel_for(n, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) f(i);
    });
  }

 private:
  struct Node;
  struct Attention;
  struct Experts;
  struct RopeTable;
  struct Keys;

  static Node* node(const Value& x);
  Value make(int64_t rows, int64_t cols);
  // y = x w^T and nothing else.
  Value product(const Value& x, const Weight& w);
  // Rounded to multiples of `scale` from -128 to 127; x itself if it is 0.
  Value rounded(const Value& x, float scale);
  // Rounded to 127 steps of the largest of each 32.
  Value rounded_blocks(const Value& x);
  const T* parameter(const Weight& w) const;
  T* parameter_gradient(const Weight& w) const;
  bool recording() const { return gradients_ != nullptr; }
  void record(std::function<void()> step) {
    if (recording()) steps_.push_back(std::move(step));
  }
  // The node's gradient, zeroed when it is first asked for.
  T* gradient_of(Node* n);
  // The same without zeroing: *fresh says that the caller must write every element.
  T* gradient_of(Node* n, bool* fresh);
  void gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const T* a, const T* b, T beta, T* c,
            ThreadPool* pool);
  // Adds `width` sums over [0, n) to `out`: f(begin, end, partial) over fixed ranges of `chunk`
  // items, partials joined in ascending order.
  template <class F>
  void reduce(int64_t n, int64_t chunk, int64_t width, T* out, F&& f);
  const RopeTable& rope_table(const kernels::Rope& rope, int32_t max_position);
  void attend(const Attention& a);
  void attend_backward(const Attention& a);
  void mix(const Experts& e);
  void mix_backward(const Experts& e);
  double sum_rows(std::span<const T> rows) const;

  const ParameterLayout& layout_;
  const T* values_;
  T* gradients_;
  ThreadPool& pool_;
  const Loops<T>& loops_;
  Arena arena_;
  std::vector<std::shared_ptr<Node>> nodes_;
  std::vector<std::function<void()>> steps_;
  std::map<int32_t, std::shared_ptr<Keys>> keys_;  // of the owning layers
  std::vector<std::unique_ptr<RopeTable>> ropes_;
  double flops_ = 0;
  bool rounds_blocks_ = false;
};

}  // namespace carat::train
