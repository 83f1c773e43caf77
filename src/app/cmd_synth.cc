#include <fmt/format.h>

#include <cstdio>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/progress.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/recipe.h"
#include "convert/synth.h"
#include "model/config.h"

namespace carat::app {
namespace {

std::vector<std::string> type_names() {
  std::vector<std::string> names;
  for (const convert::GgufRecipe& r : convert::gguf_recipes()) names.emplace_back(r.name);
  for (std::string& name : convert::synth_coded_types()) names.push_back(std::move(name));
  return names;
}

class SynthCommand final : public Command {
 public:
  std::string name() const override { return "synth"; }

  HelpText help() const override {
    return {
        .summary = "writes a random checkpoint of true shape",
        .description =
            "For benchmarks and tests without a download: the tensors, types and metadata of "
            "the real model, random weights whose activations stay sane through all layers, "
            "and a generated tokenizer of the real size. The same seed gives the same file.\n"
            "In GGUF, q4_0 is Google's mix: embedding tables Q6_K, the per-layer projection "
            "F16, norms F32; q4_0_all is what `carat convert` writes; q4_k_m and q5_k_m are "
            "llama.cpp's mixes; the name of another "
            "quantized "
            "type means every matrix in it. In a directory it is bf16 on the Q4_0 lattice, like a "
            "checkpoint of quantization-aware training.\n"
            "w4a16-ct, mobile-transformers and mobile-ct are directories of codes with the names, "
            "types and scales of the published ones, without the towers for images and sound; the "
            "mobile kinds exist for E2B and E4B (and tiny).\n"
            "SIZE-assistant is the drafter of a size (--type q4_0 or bf16), SIZE-mmproj its towers "
            "for images and sound, in BF16.",
        .examples = {
            {"carat synth E2B e2b.gguf", "3.3 GB, then: carat bench e2b.gguf"},
            {"carat synth E2B q4_k_m.gguf --type q4_k_m", "the types of most published files"},
            {"carat synth tiny tiny/ --format hf --type f32", "a small model directory"},
            {"carat synth E2B mobile/ --format hf --type mobile-transformers",
             "2-, 4- and 8-bit codes with rounded activations"},
            {"carat synth E2B-mmproj mmproj.gguf",
             "what llama.cpp's multimodal tool loads beside it"},
            {"carat synth 31B part/ --format hf --layers 12", "true widths on a small disk"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "SIZE",
         .target = &options_.size,
         .required = true,
         .help = fmt::format("one of {}; or one of them with -assistant or -mmproj",
                             fmt::join(model::config_size_names(), ", "))},
        {.names = "OUT",
         .target = &options_.target,
         .required = true,
         .help = "file or directory to write"},
        {.names = "--format",
         .value = "FORMAT",
         .target = &format_,
         .help = "container",
         .choices = {"gguf", "hf"}},
        {.names = "--type",
         .value = "TYPE",
         .target = &type_,
         .help = "type of the weights",
         .choices = type_names()},
        {.names = "--layers",
         .value = "N",
         .target = &options_.layers,
         .help = "writes only N layers of true width, a multiple of the distance between global "
                 "layers; 0 writes all",
         .lowest = 0},
        {.names = "--seed", .value = "S", .target = &seed_, .help = "of the weights", .lowest = 0},
        {.names = "--force", .target = &options_.overwrite, .help = "replaces an existing target"},
        json_option(&json_)};
  }

  int run(const Environment& environment) override {
    options_.gguf = format_ == "gguf";
    options_.type = type_;
    options_.seed = static_cast<uint64_t>(seed_);
    options_.stop = environment.stop;
    Progress progress("MB");
    options_.progress = [&](int64_t done, int64_t total) {
      progress.update(done / 1'000'000, total / 1'000'000);
    };
    const convert::SynthReport report = convert::write_synthetic(options_);
    progress.finish();
    if (json_) {
      Json j;
      j["size"] = options_.size;
      j["out"] = options_.target;
      j["format"] = format_;
      j["type"] = type_;
      j["seed"] = seed_;
      j["tensors"] = report.tensors;
      j["parameters"] = report.parameters;
      j["bytes"] = report.bytes;
      fmt::print("{}\n", to_json_text(j));
    } else {
      fmt::print("wrote {}: {} tensors, {:.3f} B parameters, {}\n", options_.target, report.tensors,
                 static_cast<double>(report.parameters) / 1e9, format_bytes(report.bytes));
    }
    return kDone;
  }

 private:
  convert::SynthOptions options_;
  std::string format_ = "gguf";
  std::string type_ = "q4_0";
  int64_t seed_ = 1;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_synth_command() { return std::make_unique<SynthCommand>(); }

}  // namespace carat::app
