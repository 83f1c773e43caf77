// Mean KLD of a model with other weights to the model itself, over a few chunks of a text.
//
// What the model predicts is kept: its logits where the memory allows, else what the tokens are
// after the last layer, of which the logits are made again. Figures are those of audit/compare.h
// over the positions that an audit compares, bit for bit, whatever is kept.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "audit/figure.h"
#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace carat::quantize {

// Sums of KLD, chunk by chunk.
struct Klds {
  std::vector<double> sums;
  std::vector<int64_t> counts;
  double mean() const;
  // The mean with its 95 % bootstrap over chunks; none with fewer than two chunks.
  audit::Figure figure() const;
};

// The mean of a - b over the same chunks, with its standard error over chunks (infinite where there
// are fewer than two).
struct KldDifference {
  double mean = 0, error = 0;
};
[[nodiscard]] KldDifference difference(const Klds& a, const Klds& b);

// Used by one thread.
class KldMeter {
 public:
  struct Call {
    const model::Weights* model = nullptr;         // outlives it
    std::span<const std::vector<int32_t>> chunks;  // copied
    int64_t memory = 0;                            // bytes that kept logits may take
    const std::atomic<bool>* stop = nullptr;
    std::function<void(int64_t tokens)> advance;  // told of every chunk that was read; may be empty
  };
  // Reads the chunks with the model. `pool` and `table` outlive it. Throws Error if a chunk is
  // longer than the model's context. REQUIRES: every chunk has more than kFewestBefore tokens.
  KldMeter(const Call& call, ThreadPool& pool, const kernels::KernelTable& table);

  // Tokens before the next one, at least, where a position is compared.
  static constexpr int64_t kFewestBefore = 16;

  int64_t positions() const { return positions_; }  // compared
  int64_t tokens() const { return tokens_; }        // read, each time
  // Positions that are compared of each chunk.
  static std::vector<int64_t> counts(std::span<const std::vector<int32_t>> chunks);
  // REQUIRES: weights of the same config. Throws Error if a KLD is not a finite number.
  Klds measure(const model::Weights& weights);

 private:
  template <class F>
  void read(const model::Weights& weights, size_t chunk, F f);
  void logits(const model::Weights& weights, const kernels::Value& hidden, int64_t first, int64_t n,
              std::span<float> out);

  Call call_;
  ThreadPool& pool_;
  kernels::CpuOps ops_;
  model::KvSequence sequence_;
  int64_t positions_ = 0, tokens_ = 0;
  size_t vocab_ = 0;
  std::vector<std::vector<int32_t>> chunks_;
  std::vector<std::vector<float>> kept_;  // [chunk]: logits of its positions, or hidden states
  bool keeps_logits_ = false;
  std::vector<float> a_, b_;
};

}  // namespace carat::quantize
