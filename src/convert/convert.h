// Checkpoint to checkpoint: opens any model that carat runs and writes it in another format, as a
// stream. Memory stays at a few tens of megabytes beside the tokenizer, whatever the model's size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "convert/checksums.h"
#include "convert/encoded_rows.h"
#include "convert/lattice_stats.h"
#include "convert/loss.h"
#include "convert/recipe.h"
#include "tensor/tensor.h"

namespace carat::convert {

enum class Format : uint8_t {
  kGgufQ4_0,            // every matrix that lies on the Q4_0 lattice in Q4_0, embeddings included
  kGgufGoogle,          // the published mix: Q4_0, embedding tables Q6_K, per-layer projection F16
  kGgufBf16,            // every matrix in BF16
  kHfBf16,              // a Hugging Face directory, everything in BF16
  kGguf,                // types by a recipe (recipe.h)
  kW4A16,               // compressed-tensors: 4-bit linear layers with a BF16 scale per 32 weights
  kMobileTransformers,  // 2-, 4- and 8-bit codes with a scale per row, static activations
  kMobileCt,            // the same as compressed-tensors
  kMmprojBf16,          // the vision and audio towers, as llama.cpp's multimodal tool loads them
};

// The name used on the command line: "gguf-q4_0".
const char* name_of(Format format);
std::vector<std::string> format_names();
// Throws Error listing the names.
Format format_from_name(std::string_view name);
// A Hugging Face directory, not a file.
bool is_directory(Format format);

struct ConvertOptions {
  std::string source;  // whatever model::load_model opens; never written to
  std::string target;  // a .gguf file, or for hf-bf16 a directory; its folder exists
  Format format = Format::kGgufQ4_0;

  // A matrix becomes Q4_0 if at least this share of its blocks lies on the lattice. One that does
  // not stays as it is: BF16 if its source is a float type, else the source's own type.
  double min_lattice_share = 1.0;
  // Rounds every matrix to Q4_0, lattice or not; blocks off it get the least squared error. Of
  // gguf-q4_0 and gguf-google; nothing to the other formats.
  bool force_q4_0 = false;
  Recipe recipe;  // of kGguf
  // Matrices that are written as somebody else encoded them, in those types. Of GGUF files of the
  // text model; null: none. Outlives the conversion.
  const EncodedRows* encoded = nullptr;
  // An importance matrix (docs/formats.md): blocks that are rounded are fitted to errors weighted
  // by it. Of GGUF files of the text model; Error with others. Empty: all columns count alike.
  std::string imatrix;
  // Reads 4-bit codes as they were before an exporter made their scales 8/7.5 too large
  // (scale_shift.h). Throws Error if some group shows that this did not happen.
  bool undo_scale_shift = false;
  // What may be lost. A conversion that would lose anything else throws Error naming it, except
  // where the format itself asks for rounding: gguf-google and recipes of quantized types. A 4-bit
  // lattice written as bfloat16 counts as kept, because it can be found again.
  Losses accepted;
  bool overwrite = false;  // replace an existing target

  int threads = 1;
  // Of tensors in a file of the result, which is split where it would hold more.
  int64_t max_shard_bytes = int64_t{5} * 1000 * 1000 * 1000;  // of directories
  int64_t max_file_bytes = INT64_MAX;                         // of GGUF files
  // Called on the caller's thread some ten times a gigabyte; bytes of source tensors. `note` is the
  // tensor at hand. The total may grow once (a surprise off the lattice means a second pass).
  std::function<void(int64_t done, int64_t total, const std::string& note)> progress;
  // Told at once: that an unfinished conversion is taken up, or was left.
  std::function<void(const std::string& text)> note;
  // Set: throws Interrupted. If a tensor is complete, what was done stays in TARGET.part with a
  // journal, and the same options go on from there.
  const std::atomic<bool>* stop = nullptr;
};

// One tensor that was written.
struct TensorReport {
  std::string name;  // in the target
  std::string source_name;
  std::string class_name;  // what kind of matrix it is, as a person knows it (report_file.h)
  DType from = DType::kF32, to = DType::kF32;
  Shape shape;             // slowest dimension first
  int64_t bytes = 0;       // in the target
  bool is_matrix = false;  // quantizable: counted in the totals
  // Weights whose written value, rounded to bfloat16 if the source is, equals the source's bit for
  // bit (zeros of either sign are equal).
  int64_t weights = 0, weights_bit_exact = 0;
  ErrorSums error;  // zero where nothing changed; of Q4_0 see `lattice`
  // Of codes: groups that share a scale, those that are exact, those whose scale alone was rounded.
  int64_t groups = 0, groups_exact = 0, groups_rounded_scale = 0;
  bool judged = false;   // whether `lattice` says anything
  LatticeStats lattice;  // what its blocks are, whatever they were written as
  std::string note;      // why it is not what the format asks for; otherwise empty
};

struct ConvertReport {
  ConvertOptions options;
  std::vector<TensorReport> tensors;  // in the target's order
  std::vector<std::string> notes;     // what was skipped, and what a person should know
  std::string hint;                   // what to try instead, if the result is probably unwanted
  int64_t matrices = 0, matrices_kept = 0;  // kept: not written as the format asks
  // Over the matrices. lattice.weights_bit_exact tells what recovery can do; the two figures below
  // tell what was written.
  LatticeStats lattice;
  int64_t weights = 0, weights_bit_exact = 0;
  ErrorSums error;  // over the matrices
  Losses losses;    // what was accepted and happened
  int64_t source_bytes = 0, target_bytes = 0;
  std::vector<FileDigest> source_files, target_files;  // those that hold tensors
  double seconds = 0;
};

// The report as the command prints it. Top level: source, target, format, blocks,
// blocks_on_lattice, weights, weights_bit_exact, sign_changed_zeros, ..., tensors.
Json to_json(const ConvertReport& report);

// Throws Error (nothing is left at the target), or Interrupted. A process that is killed leaves
// what Interrupted leaves: nothing that is half-written ever carries a final name.
ConvertReport convert(const ConvertOptions& options);

}  // namespace carat::convert
