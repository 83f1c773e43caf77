// Quantized matrices out of the checkpoint's order into the one that kernels read.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "model/weights.h"

namespace carat::model {

struct PackOptions {
  // Threads that pack; null: this one alone.
  ThreadPool* pool = nullptr;
  // Packs nothing if the tiles take more bytes than this.
  int64_t memory_limit = std::numeric_limits<int64_t>::max();
  // Called on the calling thread: bytes done, of how many.
  std::function<void(int64_t done, int64_t total)> progress = nullptr;
};

// Whether pack_weights puts this parameter into tiles: a quantized matrix that a product reads in
// whole tiles. The per-layer embedding table is only looked up; floats are read as they lie.
bool is_packed_kind(const Config& config, TensorRef ref, const kernels::Weight& w);

// Bytes of all tiles, padding included. Throws Error if they do not fit 64 bits.
int64_t packed_bytes(const Weights& weights);

// Fills one block of memory with the tiles of every such matrix, read from the checkpoint's files
// piece by piece (their pages do not become resident), and points the weights there. What a weight
// is worth does not change, nor does any result. If the memory is refused, or is more than the
// limit, the weights stay as they are, which is slower, and a note says so. Throws Error if a file
// cannot be read.
void pack_weights(Weights& weights, const PackOptions& options, std::vector<std::string>* notes);

}  // namespace carat::model
