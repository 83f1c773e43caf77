#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/model_path.h"
#include "app/outputs.h"
#include "app/progress.h"
#include "app/signals.h"
#include "app/table.h"
#include "audit/compare.h"
#include "audit/model_logits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace carat::app {
namespace {

class LogitsCommand final : public Command {
 public:
  std::string name() const override { return "logits"; }

  HelpText help() const override {
    return {.summary = "writes the logits that follow each of some tokens",
            .description =
                "Reads the tokens in one sequence and writes what the model expects after each: "
                "float32, little-endian, [n_tokens, vocab] row-major, without a header. Prints "
                "the most likely next token at each position. Needs no tokenizer, and puts "
                "nothing in front of the tokens (Gemma 4 expects <bos>, id 2, first).",
            .examples = {
                {"carat logits model.gguf --tokens 2,5,9 --out logits.f32", "three rows of logits"},
                {"python3 -c \"import numpy; print(numpy.fromfile('logits.f32', "
                 "'<f4').reshape(3, -1).argmax(1))\"",
                 "reads them"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "MODEL",
             .target = &model_,
             .required = true,
             .help = "GGUF file or model directory"},
            {.names = "--tokens",
             .value = "IDS",
             .target = &tokens_,
             .required = true,
             .help = "token ids: 2,5,9"},
            {.names = "--out",
             .value = "FILE",
             .target = &out_,
             .required = true,
             .help = "where the logits go"},
            kv_option(&kv_),
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment& environment) override {
    std::vector<std::string> inputs;
    if (model_) inputs.push_back(*model_);
    check_outputs({{.option = "--out", .path = out_, .force = true}}, inputs);
    ThreadPool pool(resolve_threads(threads_));
    const model::Model model = open_model(model_, pool);
    print_notes(model);
    const int64_t vocab = model.config().vocab_size;
    for (const int32_t token : tokens_) {
      if (token < 0 || token >= vocab) {
        throw Error({"no such token",
                     {},
                     "--tokens",
                     fmt::format("0 to {}", vocab - 1),
                     std::to_string(token),
                     {}});
      }
    }
    const auto n = static_cast<int64_t>(tokens_.size());
    audit::ModelLogits source(model, {.kv = kv_type(kv_), .context = n, .name = {}}, pool,
                              kernels::choose_kernels(environment.isa));
    source.start(tokens_);
    AtomicFile file(out_);
    std::vector<int32_t> best;
    std::vector<float> logits;
    Progress progress("tokens");
    const int64_t step = source.rows_at_once();
    for (int64_t at = 0; at < n; at += step) {
      throw_if_stopped();
      const int64_t rows = std::min(step, n - at);
      logits.resize(static_cast<size_t>(rows * vocab));
      std::vector<int32_t> places(static_cast<size_t>(rows));
      std::iota(places.begin(), places.end(), static_cast<int32_t>(at));
      source.read(places, logits);
      file.write(std::as_bytes(std::span(logits)));
      for (int64_t r = 0; r < rows; ++r) {
        best.push_back(audit::argmax(
            std::span(logits).subspan(static_cast<size_t>(r * vocab), static_cast<size_t>(vocab))));
      }
      progress.update(at + rows, n);
    }
    file.commit();
    progress.finish();
    print(best, vocab);
    return kDone;
  }

 private:
  void print(const std::vector<int32_t>& best, int64_t vocab) const {
    if (json_) {
      Json j;
      j["model"] = *model_;
      j["out"] = out_;
      j["n_tokens"] = tokens_.size();
      j["vocab_size"] = vocab;
      j["tokens"] = tokens_;
      j["argmax"] = best;
      fmt::print("{}\n", to_json_text(j));
      return;
    }
    Table table({"position", "token", "argmax"});
    for (size_t i = 0; i < best.size(); ++i) {
      table.add({std::to_string(i), std::to_string(tokens_[i]), std::to_string(best[i])});
    }
    fmt::print("{}", table.text());
  }

  ModelName model_;
  std::vector<int32_t> tokens_;
  std::string out_;
  std::string kv_ = "f32";
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_logits_command() { return std::make_unique<LogitsCommand>(); }

}  // namespace carat::app
