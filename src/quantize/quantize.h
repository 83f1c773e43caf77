// A checkpoint as a quantized GGUF file whose codes were chosen with the help of a text.
//
// The work of a method happens in a Job (job.h); what it encodes is written by convert, which
// brings the metadata, the order of tensors, and all that no method touched.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "convert/convert.h"
#include "convert/recipe.h"
#include "kernels/cpu/table.h"
#include "quantize/search.h"
#include "quantize/start.h"
#include "tensor/tensor.h"

namespace carat::quantize {

enum class Method : uint8_t {
  kRound,      // the block types' own fits, weighted by an importance matrix if there is one
  kFeedback,   // columns one after the other, each taking up the error of those before (feedback.h)
  kAutoRound,  // layers one after the other, codes by signed gradient descent (auto_round.h)
  kScales,     // codes of another method, scales by distillation of the whole (scale_distill.h)
};
const char* name_of(Method method);  // as on the command line: "feedback"
std::vector<std::string> method_names();
// Throws Error listing the names.
Method method_from_name(std::string_view name);

struct QuantizeOptions {
  std::string source;  // whatever model::load_model opens; never written to
  std::string target;  // a .gguf file; its folder exists
  bool overwrite = false;
  convert::Recipe recipe;  // types of the target
  // Chooses the types instead, by what they do to the text (search.h). It measures the codes that
  // kRound makes; another method makes its own for the types that were chosen.
  std::optional<SearchOptions> search;
  std::string save_recipe;   // file for the types that were chosen; empty: none
  bool recipe_only = false;  // writes that file and no target
  Method method = Method::kRound;

  std::string text;        // of calibration, UTF-8: all but kRound need it
  int64_t context = 512;   // tokens a chunk, <bos> included
  int64_t max_tokens = 0;  // 0: all of the text
  std::string imatrix;     // file; weighs the fits of kRound, and what kFeedback leaves to them
  bool original_inputs = false;       // kFeedback: see FeedbackOptions
  double damping = 0.01;              // kFeedback
  Start start = Start::kFeedback;     // kAutoRound and kScales: the codes that they better
  int64_t steps = 0;                  // of them; 0: the method's own default
  double learning_rate = 0;           // the same
  int64_t memory = int64_t{8} << 30;  // bytes that matrices of inputs and states may take

  int threads = 1;
  std::optional<std::string> isa;
  // On the caller's thread. `what` is the tensor or the step at hand.
  std::function<void(int64_t done, int64_t total, const std::string& what)> progress;
  std::function<void(const std::string& text)> note;
  const std::atomic<bool>* stop = nullptr;  // set: throws Interrupted
};

// One matrix of the target.
struct MatrixReport {
  std::string name;  // in the target
  DType dtype = DType::kF32;
  Shape shape;
  int64_t bytes = 0;
  // "feedback", "importance", "round" or "auto_round": what made its codes; ", scales" behind it
  // where their scales were trained; "kept": as they are in the source, or a type without codes.
  std::string method;
  // Root mean square of the difference, relative to the weights.
  double error = 0;
  // The same with each column's errors and weights counted as the importance matrix has it;
  // negative if there is none.
  double weighted_error = -1;
  // The same of what the matrix gives for the calibration text: sqrt(tr(E H E^T) / tr(W H W^T)), H
  // the sums of products of its inputs; negative if they were not looked at.
  double output_error = -1;
};

struct QuantizeReport {
  QuantizeOptions options;
  int64_t tokens = 0;                  // of calibration
  std::vector<MatrixReport> matrices;  // none if only a recipe was written
  std::optional<SearchReport> search;
  std::vector<Refinement> refined;
  convert::ConvertReport written;
  double seconds = 0;
};

Json to_json(const QuantizeReport& report);

// Throws Error or Interrupted, and then leaves nothing at the target; the recipe that a search has
// found stays. Once the target is written it stays too: what keeps it from being measured is a note
// of the search's report, which then has no `written`.
QuantizeReport quantize(const QuantizeOptions& options);

}  // namespace carat::quantize
