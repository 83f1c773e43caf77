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
  // Packs no blocks if the tiles take more bytes than this. Codes are packed or it is an error.
  int64_t memory_limit = std::numeric_limits<int64_t>::max();
  // Leaves blocks in the file's order.
  bool only_codes = false;
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
// limit, blocks stay as they are, which is slower, and a note says so.
//
// Codes with one scale per row keep it as a float. 4-bit codes with one per 32 columns become Q4_0
// if every scale of the matrix is a binary16 number; a matrix with another one is expanded to F32
// (a note says so). Throws Error if a file cannot be read, a scale is not finite, or there is no
// memory for codes.
void pack_weights(Weights& weights, const PackOptions& options, std::vector<std::string>* notes);

}  // namespace carat::model
