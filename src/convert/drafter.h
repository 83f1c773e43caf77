// Drafters ("assistants") from one container to the other.
//
// In GGUF they keep their own tokenizer, as llama.cpp wants it, and lose the centroids of the
// masked head, for which llama.cpp has no use: a drafter without them scores every token, with the
// same result for those that the masked head would have scored.
#pragma once

#include <cstdint>
#include <string>

#include "convert/convert.h"
#include "io/checkpoint.h"
#include "model/drafter.h"

namespace carat::convert {

bool is_drafter(const io::Checkpoint& checkpoint);
model::DrafterConfig drafter_config(const io::Checkpoint& checkpoint);

// Writes gguf-q4_0 (matrices that lie on the lattice; the others stay BF16), gguf-bf16 or hf-bf16.
// Throws Error, also for other formats.
ConvertReport convert_drafter(const ConvertOptions& options, const io::Checkpoint& checkpoint);

struct DrafterSynthOptions {
  std::string size;  // a name of model::drafter_of_size
  std::string target;
  bool gguf = true;
  bool lattice = true;  // q4_0 in GGUF, bf16 on its lattice in a directory; else bf16
  uint64_t seed = 1;
};
ConvertReport write_synthetic_drafter(const DrafterSynthOptions& options);

// "4 layers of width 256 (3 local), for a model of width 1536; 2048 centroids"
std::string describe(const model::DrafterConfig& config);

}  // namespace carat::convert
