// Ops that compute nothing and take the memory that kernels::CpuOps would: the forward pass run on
// them tells how much activations need. Blocks are taken and never touched, so none of it becomes
// resident.
#pragma once

#include <cstdint>

#include "kernels/cpu/buffer_pool.h"
#include "kernels/ops.h"

namespace carat::model {

class FootprintOps final : public kernels::Ops {
 public:
  // Keys and values of type `kv`, `threads` threads.
  FootprintOps(kernels::KvType kv, int threads) : kv_(kv), threads_(threads) {}

  // Most bytes so far: values, their rounded copies, what is kept for the next ones, and what the
  // threads work in.
  int64_t peak_bytes() const { return peak_ + threads_ * scratch_ + turns_; }

  kernels::Value input(int64_t rows, int64_t cols, std::span<const float>) override;
  void read(const kernels::Value&, std::span<float>) override {}
  kernels::Value embed(const kernels::Weight& table, std::span<const int32_t> ids, int64_t begin,
                       int64_t cols, float) override;
  kernels::Value take_rows(const kernels::Value& x, std::span<const int32_t> rows) override;
  kernels::Value linear(const kernels::Value& x, const kernels::Weight& w) override;
  kernels::Value rms_norm(const kernels::Value& x, const kernels::Weight*, int64_t group,
                          float) override;
  kernels::Value rope(const kernels::Value& x, const kernels::Rope& rope,
                      std::span<const kernels::RowRef>) override;
  kernels::Value add(const kernels::Value& a, const kernels::Value&) override;
  kernels::Value scale(const kernels::Value& x, float) override;
  kernels::Value scale_by(const kernels::Value& x, const kernels::Weight&) override;
  kernels::Value geglu(const kernels::Value& gate, const kernels::Value&) override;
  kernels::Value softcap(const kernels::Value& x, float) override;
  kernels::Value attention(const kernels::Value& q, const kernels::Value&, const kernels::Value&,
                           const kernels::AttentionCall& call) override;
  kernels::Route route(const kernels::Value& logits, const kernels::Weight&,
                       int64_t top_k) override;
  kernels::Value experts(const kernels::Value& x, const kernels::Route& route,
                         const kernels::Weight& gate_up, const kernels::Weight& down) override;
  kernels::Value add_norm(const kernels::Value& x, const kernels::Value&, const kernels::Weight&,
                          float) override;
  kernels::Value gated(const kernels::Value& x, const kernels::Weight& gate,
                       const kernels::Weight& up) override;

 private:
  struct Sized;
  kernels::Value make(int64_t rows, int64_t cols);
  // Give a value its rounded copy, once: with scales of its own, or with stored ones.
  void round(const kernels::Value& x);
  void round_statically(const kernels::Value& x);
  // What a product of x with w takes besides its result.
  void prepare(const kernels::Value& x, const kernels::Weight& w);
  void need_scratch(int64_t bytes_per_thread);
  void note_peak();

  kernels::BufferPool pool_;
  const kernels::KvType kv_;
  const int threads_;
  int64_t peak_ = 0;
  int64_t scratch_ = 0;       // of a thread
  int64_t turns_ = 0;         // sines and cosines
  bool rounds_ahead_ = true;  // what is mostly multiplied next, until a stored scale was asked for
};

}  // namespace carat::model
