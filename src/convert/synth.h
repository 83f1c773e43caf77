// Random checkpoints of true shape, streamed to disk: for benchmarks, for tests of formats, for
// trying a machine before a download.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "text/vocab.h"

namespace carat::convert {

struct SynthOptions {
  std::string size;    // a name of model::config_of_size
  std::string target;  // a .gguf file, or a directory
  bool gguf = true;    // else a Hugging Face directory
  // GGUF: a name of recipe.h. Directory: "f32", "f16" or "bf16", or "q4_0" for the bf16 weights of
  // quantization-aware training, which lie on the Q4_0 lattice, or a kind of codes: "w4a16-ct",
  // "mobile-transformers" or "mobile-ct".
  std::string type = "q4_0";
  // Fewer layers of true width: a multiple of the distance between global layers; 0: all of them.
  // As many of them share K and V as in the full model, to the nearest such multiple.
  int64_t layers = 0;
  uint64_t seed = 1;
  bool overwrite = false;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes
  const std::atomic<bool>* stop = nullptr;                    // set: throws Interrupted
};

struct SynthReport {
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;  // of tensors
};

// The names of the kinds of codes, in the order above.
std::vector<std::string> synth_coded_types();

// Parameters are model::RandomTensor's and RandomCodes': activations stay sane through all layers.
// The tokenizer is a generated one of the model's size. A kind of codes has its published names,
// types, shapes and scales of activations, without the towers of images and sound. Throws Error;
// leaves nothing behind then.
SynthReport write_synthetic(const SynthOptions& options);

// Bytes of all the files that write_synthetic writes, texts and headers included. `vocab` is
// synthetic_vocab of the size's vocabulary: making it takes longer than all the rest.
[[nodiscard]] int64_t synthetic_bytes(const SynthOptions& options, const text::Vocab& vocab);

// A vocabulary of `size` entries with Gemma 4's markers, byte tokens and newline runs; the rest are
// strings of letters, shortest first, each the merge of a shorter one and a letter. A vocabulary of
// Gemma 4's size has as many merges as Gemma 4's. REQUIRES: size >= 400.
[[nodiscard]] text::Vocab synthetic_vocab(int32_t size);

}  // namespace carat::convert
