// What a checkpoint is: its config, tensors, sizes, what of it carat does not use, and how its
// weights sit on the Q4_0 lattice.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "convert/inspect_codes.h"
#include "convert/lattice_stats.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace carat::convert {

struct InspectOptions {
  std::string path;
  // Judge every block of every float matrix instead of some thousand blocks of each.
  bool full = false;
  bool lattice = true;
  // Another checkpoint of the same model, in any format: each of its tensors is decoded, rounded to
  // bfloat16 and compared with this one's, value for value.
  std::string against;
  int threads = 1;
  std::function<void(int64_t done, int64_t total, const std::string& note)> progress;  // bytes
  const std::atomic<bool>* stop = nullptr;  // set: throws Interrupted
};

struct Comparison {
  int64_t weights = 0;
  int64_t equal = 0;        // after rounding both to bfloat16; zeros of either sign are equal
  double relative_rms = 0;  // |a - b| over |a|, root of sums of squares, before rounding
  bool all_equal() const { return equal == weights; }
};

// A parameter with all its parts (codes, scales, ...), or a tensor of the file that is none of the
// text model's.
struct InspectedTensor {
  std::string name;  // in the file; of codes the name that the parameter has unquantized
  DType dtype = DType::kF32;
  Shape shape;  // slowest dimension first
  int64_t bytes = 0;
  std::string skipped;  // why carat does not use it: "vision tower"; empty if it does
  std::optional<LatticeStats> lattice;   // of float matrices; sampled unless `full`
  std::optional<Comparison> comparison;  // with `against`; absent for skipped ones
};

struct InspectReport {
  std::string path;
  std::string kind;  // "GGUF", "Hugging Face directory", "safetensors"
  model::Config config;
  int64_t parameters = 0;  // of the text model
  bool has_tokenizer = false;
  int64_t tokenizer_size = 0;
  std::vector<std::string> notes;
  std::vector<InspectedTensor> tensors;

  // Per type and per reason for skipping, in order of first appearance.
  struct Group {
    std::string name;
    int64_t tensors = 0, weights = 0, bytes = 0;
  };
  std::vector<Group> types;  // of tensors that are used
  std::vector<Group> skipped;
  int64_t bytes = 0;  // of all tensors

  CodedReport codes;

  LatticeStats lattice;  // sum; lattice.blocks == 0 if nothing was judged
  bool lattice_sampled = false;
  std::string against;
  Comparison comparison;               // sum over compared tensors
  std::vector<std::string> different;  // names of compared tensors that are not equal
};

Json to_json(const InspectReport& report);

// Throws Error, or Interrupted.
InspectReport inspect(const InspectOptions& options);

}  // namespace carat::convert
