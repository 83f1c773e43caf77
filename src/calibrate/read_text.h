// Reading a calibration text with a model while its products' inputs are observed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "calibrate/observed_ops.h"
#include "kernels/cpu/table.h"
#include "model/weights.h"

namespace carat::calibrate {

struct TextOptions {
  int64_t context = 512;   // tokens a chunk, <bos> included; >= 2
  int64_t max_tokens = 0;  // ends after the chunk that reaches so many; 0: the whole text
};

// Pieces of `text` with <bos> before each, as `carat audit` cuts a text; a last one of fewer than
// 16 tokens is left out unless it is all there is.
[[nodiscard]] std::vector<std::vector<int32_t>> calibration_chunks(std::span<const int32_t> text,
                                                                   int32_t bos,
                                                                   const TextOptions& options);

struct ReadCall {
  const model::Weights* weights = nullptr;
  std::span<const std::vector<int32_t>> chunks;  // each read afresh; tokens in [0, vocab_size)
  // Layers [0, layers) run; at -1 all of them, and the output matrix's input is observed. Its
  // product is not computed.
  int64_t layers = -1;
  // `done` and `total` count tokens. May be empty.
  std::function<void(int64_t done, int64_t total)> progress;
  const std::atomic<bool>* stop = nullptr;  // set: throws Interrupted
};

// Runs every chunk, at most 512 tokens at a time, keys and values in float32. What the observer
// sees does not depend on the number of threads. Throws Error if a chunk is longer than the model's
// context.
void read_chunks(const ReadCall& call, InputObserver& observer, ThreadPool& pool,
                 const kernels::KernelTable& table);

}  // namespace carat::calibrate
