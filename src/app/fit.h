// What fits a machine: for every size and kind of checkpoint the bytes of its files, the memory
// that running it takes, the longest context and the speed that reading the weights allows.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/kv_pages.h"
#include "model/footprint.h"
#include "model/load.h"
#include "text/vocab.h"

namespace carat::app {

// A kind of checkpoint.
struct FitKind {
  const char* name;       // as `carat convert --to` and the published folders call it
  bool gguf;              // else a directory
  const char* synthetic;  // the --type of `carat synth` that writes it
  bool small_only;        // published for E2B and E4B only
};
std::span<const FitKind> fit_kinds();

// A size and its published facts.
struct FitSize {
  const char* name;  // of model::config_of_size
  // Google's table of memory in GiB: parameters, towers included, x 2 bytes x 1.2 for BF16 and a
  // quarter of that for Q4_0; 0: not in the table.
  double google_bf16, google_q4_0, google_mobile, google_mobile_text;
};
std::span<const FitSize> fit_sizes();

struct FitInput {
  int64_t memory = 0;   // bytes that may be used
  int64_t context = 0;  // tokens
  kernels::KvType kv = kernels::KvType::kI8;
  int threads = 1;
  double bandwidth = 0;  // bytes read a second
};

// Tokens of a prompt in one step, as sessions read it.
inline constexpr int64_t kFitChunk = 512;

// Of what `carat run` needs besides the parts that depend on the model: the program and its
// libraries, as far as they become resident.
inline constexpr int64_t kProgramBytes = 9'000'000;

// Of the read bandwidth, what decoding reaches (docs/performance.md: 73 to 85 % from E2B to 12B).
inline constexpr double kShareOfBandwidth = 0.8;

struct Fit {
  std::string size, kind;
  int64_t parameters = 0;
  int64_t file_bytes = 0;

  model::WeightMemory weights;
  model::KvMemory kv;  // at `context`
  int64_t activations = 0, tokenizer = 0, program = 0;
  int64_t total() const {
    return weights.resident() + kv.total() + activations + tokenizer + program;
  }

  int64_t context = 0;          // that the figures are for: as asked, at most max_context
  int64_t max_context = 0;      // that the model takes
  int64_t longest_context = 0;  // that fits; 0: the weights alone do not
  bool fits = false;            // with the context asked for
  double speed_limit = 0;       // tokens a second if the bandwidth were all used
  double speed() const { return kShareOfBandwidth * speed_limit; }
};

// One model. `weights` are those of a file, before packing, or of a shape alone. `file_bytes` and
// `tokenizer` are the caller's. A context longer than the model takes does not fit; the figures are
// for the longest that it takes then.
[[nodiscard]] Fit fit_model(const model::Weights& weights, int64_t tokenizer,
                            const FitInput& input);

// Every size in every kind that it is published in, smallest size first, as `carat synth` writes
// them.
[[nodiscard]] std::vector<Fit> fit_all(const FitInput& input);

// The largest model that fits and writes at a pace that one can read along, in the smallest kind
// that keeps what training made of it; else the fastest that fits. Nothing: none fits.
[[nodiscard]] std::optional<Fit> recommended(const std::vector<Fit>& fits);

// That in one sentence.
[[nodiscard]] std::string recommendation(const std::vector<Fit>& fits, const FitInput& input);

// BF16 bytes of the small model that drafts for models like this one; 0: none is published.
[[nodiscard]] int64_t drafter_bytes(const model::Config& config);

// Bytes that sessions keep of `n_tokens` read in one go, besides what the sequence itself needs, to
// go back to earlier places; let go as soon as the memory is needed.
[[nodiscard]] int64_t kept_prefix_bytes(const model::Config& config, kernels::KvType kv,
                                        int64_t n_tokens);

// Tokens: "4096", "32k" (32 x 1024). Throws UsageError naming `option`.
[[nodiscard]] int64_t parse_tokens(const std::string& text, const std::string& option);

}  // namespace carat::app
