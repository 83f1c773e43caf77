// What `carat audit` compares: models as the command line names them, opened once each.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/model_path.h"
#include "audit/report.h"
#include "base/json.h"
#include "kernels/kv_pages.h"

namespace carat::app {

// "PATH" or "PATH@key=value,key=value" with the keys kv (f32, f16, int8, int4, int4r) and role
// (original, qat). An @ that no key follows belongs to the path.
struct ModelSpec {
  std::string text;  // as typed
  std::string path;
  std::string kv;
  std::string role;  // empty: not stated
};
// Throws UsageError for an unknown key or value.
[[nodiscard]] ModelSpec parse_model_spec(const std::string& text, const std::string& default_kv);

// A model and what it says about itself beside its weights.
struct OpenedModel {
  model::Model model;
  bool instruction_tuned =
      false;  // it brings a chat template and its tokenizer the markers of turns
  std::vector<std::string> paths;  // of all its files
};

// Opens every path once, however often it is named.
class OpenedModels {
 public:
  explicit OpenedModels(ThreadPool& pool) : pool_(pool) {}
  // `mapped`: not packed, for running layer by layer. REQUIRES: a path always the same way.
  const OpenedModel& open(const std::string& path, bool mapped);
  // Of an opened model.
  const std::vector<std::string>& paths(const std::string& path) const {
    return models_.at(path)->paths;
  }

 private:
  ThreadPool& pool_;
  std::map<std::string, std::unique_ptr<OpenedModel>> models_;
};

// What kind of reference a model is, judged by its weights: "QAT bf16" if the float matrices lie on
// a 4-bit lattice, "original bf16" if they do not, else the type of most of its weights ("Q4_0").
// A stated role decides between the first two.
[[nodiscard]] std::string describe_weights(const model::Model& model, const std::string& role);

// Files with their digests, sizes, and bits per weight.
[[nodiscard]] audit::ModelInfo model_info(const ModelSpec& spec, const OpenedModel& opened);
[[nodiscard]] audit::FileInfo file_info(const std::string& path, bool with_digest);

// What tells that files are still the same: path, size, time of the last change.
[[nodiscard]] Json file_marks(const std::vector<std::string>& paths);

}  // namespace carat::app
