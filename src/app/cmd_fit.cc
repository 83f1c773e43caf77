#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string_view>

#include "app/checksums.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/fit.h"
#include "app/memory.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/version.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "kernels/cpu/bandwidth.h"
#include "model/kv_cache.h"

namespace carat::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kUsualContext = 8192;  // tokens

std::string megabytes(int64_t bytes) {
  return fmt::format("{:.0f}", static_cast<double>(bytes) / 1e6);
}
std::string gigabytes(int64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / 1e9);
}

// Of a file and the other parts of a split one, or of all files of a directory.
int64_t bytes_on_disk(const std::string& path) {
  std::error_code ignored;
  int64_t bytes = 0;
  if (!fs::is_directory(path, ignored)) {
    for (const std::string& part : parts_of(path)) {
      bytes += static_cast<int64_t>(fs::file_size(part, ignored));
    }
    return bytes;
  }
  for (const auto& entry : fs::directory_iterator(path, ignored)) {
    if (entry.is_regular_file(ignored)) bytes += static_cast<int64_t>(entry.file_size(ignored));
  }
  return bytes;
}

class FitCommand final : public Command {
 public:
  std::string name() const override { return "fit"; }

  HelpText help() const override {
    return {
        .summary = "tells which models fit this machine, or another one",
        .description =
            "For every size and kind of checkpoint: the bytes of its files, the memory that "
            "running it takes with a context of --context tokens, the longest context that fits "
            "and the speed of writing. With MODEL the same for one checkpoint, whose tensors are "
            "not read.\n"
            "Memory is what `carat run` makes resident: weights as the kernels read them, keys and "
            "values of local layers (up to their window) and of global ones, the activations of "
            "512 tokens, tokenizer and program. Tables that are only looked up stay in the file. "
            "As in `carat run`, weights packed for the kernels may take nine tenths of what is "
            "free, and keys and values nine tenths of what everything else leaves. The speed is "
            "four fifths of "
            "what reading the weights once a token allows; the bandwidth is measured, which takes "
            "a second, unless it is given.\n"
            "Sizes of files are exact of text-only files as carat writes them.\n"
            "Google's figures are those of its table, in GiB: parameters x 2 bytes x 1.2 for BF16, "
            "a quarter of that for Q4_0.",
        .examples = {{"carat fit", "this machine, in what is free now"},
                     {"carat fit --ram 16G --vram 0 --context 32k", "another one"},
                     {"carat fit gemma-4-E2B-it.gguf --context 128k", "one checkpoint"},
                     {"carat fit --ram 8G --bandwidth 60 --json", "for scripts"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "MODEL",
             .target = &model_,
             .help = "GGUF file or model directory; without it, every size and kind"},
            {.names = "--ram",
             .value = "SIZE",
             .target = &ram_,
             .help = "memory that may be used; without it, what is free here within the limits of "
                     "the container"},
            {.names = "--vram",
             .value = "SIZE",
             .target = &vram_,
             .help = "memory of a graphics card, which carat does not use"},
            {.names = "-c,--context",
             .value = "N",
             .target = &context_,
             .help = "tokens of a conversation; 32k is 32 x 1024; without it, 8k or what MODEL "
                     "takes at most"},
            {.names = "--bandwidth",
             .value = "GB/S",
             .target = &bandwidth_,
             .help = "what the machine reads in a second, 1e9 bytes; without it, measured here",
             .lowest = 0.1,
             .highest = 1e5},
            kv_option(&kv_),
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment&) override {
    FitInput input;
    input.memory = ram_ ? parse_bytes(*ram_, "--ram") : available_memory();
    (void)parse_bytes(vram_, "--vram");
    input.context = context_ ? parse_tokens(*context_, "--context") : kUsualContext;
    input.kv = kv_type(kv_);
    input.threads = resolve_threads(threads_);
    const std::optional<model::Model> model = load();
    if (model && !context_) input.context = std::min(input.context, model->config().max_seq_len);
    if (bandwidth_) {
      input.bandwidth = *bandwidth_ * 1e9;
    } else {
      ThreadPool pool(input.threads);
      input.bandwidth = kernels::measure_read_bandwidth(pool);
    }
    const std::vector<Fit> fits = model ? std::vector<Fit>{fit_one(*model, input)} : fit_all(input);
    if (json_) {
      print_json(fits, input, model ? &*model : nullptr);
    } else if (model) {
      print_one(fits.front(), input, *model);
    } else {
      print_all(fits, input);
    }
    return kDone;
  }

 private:
  std::optional<model::Model> load() const {
    if (!model_) return std::nullopt;
    return model::load_model(open_model_checkpoint(model_));
  }

  Fit fit_one(const model::Model& model, const FitInput& input) const {
    model::require_kv_type(model.weights, input.kv);
    const int64_t tokenizer =
        model.tokenizer ? model::tokenizer_bytes(model.tokenizer->vocab()) : 0;
    Fit f = fit_model(model.weights, tokenizer, input);
    f.kind = *model_;
    f.file_bytes = bytes_on_disk(*model_);
    return f;
  }

  std::string machine_text(const FitInput& input) const {
    return fmt::format("{}: {} GB of memory{}, {} threads, {:.1f} GB/s {}",
                       ram_ ? "asked for" : "here", gigabytes(input.memory), ram_ ? "" : " free",
                       input.threads, input.bandwidth / 1e9,
                       bandwidth_ ? "given" : "measured here");
  }

  void print_vram_note() const {
    if (parse_bytes(vram_, "--vram") == 0) return;
    fmt::print("carat computes on the processor: the graphics card's memory is not used\n");
  }

  static std::string google_text(const FitSize& s) {
    std::string text = fmt::format("Google: {} GiB BF16, {} Q4_0", s.google_bf16, s.google_q4_0);
    if (s.google_mobile > 0) {
      text += fmt::format(", {} mobile ({} text only)", s.google_mobile, s.google_mobile_text);
    }
    return text;
  }

  void print_all(const std::vector<Fit>& fits, const FitInput& input) const {
    fmt::print("{}\n", machine_text(input));
    print_vram_note();
    fmt::print(
        "With {} tokens of context, K/V {}{}. MB of 1e6 bytes; tokenizer ({}) and program ({}) are "
        "in all.\n",
        input.context, kv_, kernels::is_kv4(input.kv) ? " (mobile int8)" : "",
        megabytes(fits.front().tokenizer), megabytes(fits.front().program));
    for (const FitSize& size : fit_sizes()) {
      const model::Config config = model::config_of_size(size.name);
      fmt::print("\n{}: {:.2f} B parameters, drafter {} MB. {}\n", size.name,
                 static_cast<double>(model::parameter_count(config)) / 1e9,
                 megabytes(drafter_bytes(config)), google_text(size));
      if (input.context > config.max_seq_len) {
        fmt::print("{} takes {} tokens at most, which the figures are for: {} do not fit.\n",
                   size.name, config.max_seq_len, input.context);
      }
      Table table({"kind", "files", "weights", "K/V local", "global", "work", "all", "fits",
                   "longest", "tokens/s"});
      for (const Fit& f : fits) {
        if (f.size != size.name) continue;
        table.add({f.kind, megabytes(f.file_bytes), megabytes(f.weights.resident()),
                   megabytes(f.kv.local), megabytes(f.kv.global), megabytes(f.activations),
                   megabytes(f.total()), f.fits ? "yes" : "no",
                   f.longest_context > 0 ? fmt::format("{}", f.longest_context) : "-",
                   f.fits ? fmt::format("{:.1f}", f.speed()) : "-"});
      }
      fmt::print("{}", table.text());
    }
    fmt::print("\n{}\n", wrap(recommendation(fits, input), 0));
  }

  void print_one(const Fit& f, const FitInput& input, const model::Model& model) const {
    fmt::print("{}\n", machine_text(input));
    print_vram_note();
    fmt::print("{}: {:.3f} B parameters, {} MB of files; {} tokens of context, K/V {}\n\n", f.kind,
               static_cast<double>(f.parameters) / 1e9, megabytes(f.file_bytes), f.context, kv_);
    Table table({"memory", "MB", ""});
    const auto row = [&](const char* name, int64_t bytes, std::string note) {
      table.add({name, megabytes(bytes), std::move(note)});
    };
    row("weights", f.weights.resident(),
        fmt::format("{} packed, {} in the file's pages; {} stay on the disk",
                    megabytes(f.weights.packed), megabytes(f.weights.mapped),
                    megabytes(f.weights.in_file)));
    row("K/V of local layers", f.kv.local, fmt::format("window {}", model.config().window));
    row("K/V of global layers", f.kv.global, "");
    row("activations", f.activations, "");
    row("tokenizer", f.tokenizer, "");
    row("program", f.program, "");
    row("all", f.total(), "");
    fmt::print("{}\n", table.text());
    const int64_t drafter = drafter_bytes(model.config());
    if (drafter > 0) fmt::print("a drafter for it would take {} MB in BF16\n", megabytes(drafter));
    if (f.longest_context == 0) {
      fmt::print("It does not fit: the weights alone are too large.\n");
      return;
    }
    if (input.context > f.max_context) {
      fmt::print("It does not take {} tokens of context: the model's maximum is {}; {} fit.\n",
                 input.context, f.max_context, f.longest_context);
      return;
    }
    fmt::print("It {} with {} tokens of context; {} fit. About {:.1f} tokens/s, {:.1f} at most.\n",
               f.fits ? "fits" : "does not fit", f.context, f.longest_context, f.speed(),
               f.speed_limit);
  }

  static Json to_json(const Fit& f, const FitInput& input, const model::Config& config) {
    Json j;
    if (!f.size.empty()) j["size"] = f.size;
    j["kind"] = f.kind;
    j["parameters"] = f.parameters;
    j["file_bytes"] = f.file_bytes;
    j["weight_bytes"] = f.weights.resident();
    j["packed_bytes"] = f.weights.packed;
    j["mapped_bytes"] = f.weights.mapped;
    j["looked_up_bytes"] = f.weights.in_file;
    j["kv_local_bytes"] = f.kv.local;
    j["kv_global_bytes"] = f.kv.global;
    j["kept_prefix_bytes"] = kept_prefix_bytes(config, input.kv, f.context);
    j["activation_bytes"] = f.activations;
    j["tokenizer_bytes"] = f.tokenizer;
    j["program_bytes"] = f.program;
    j["total_bytes"] = f.total();
    j["drafter_bytes"] = drafter_bytes(config);
    j["context"] = f.context;
    j["max_context"] = f.max_context;
    j["longest_context"] = f.longest_context;
    j["fits"] = f.fits;
    j["decode_tokens_per_second"] = f.speed();
    j["decode_tokens_per_second_limit"] = f.speed_limit;
    return j;
  }

  void print_json(const std::vector<Fit>& fits, const FitInput& input,
                  const model::Model* model) const {
    Json j;
    j["memory_bytes"] = input.memory;
    j["context"] = input.context;
    j["kv"] = kv_;
    j["threads"] = input.threads;
    j["read_gigabytes_per_second"] = input.bandwidth / 1e9;
    j["bandwidth_measured"] = !bandwidth_.has_value();
    j["fits"] = Json::array();
    for (const Fit& f : fits) {
      j["fits"].push_back(
          to_json(f, input, model ? model->config() : model::config_of_size(f.size)));
    }
    if (!model) {
      for (const FitSize& s : fit_sizes()) {
        Json& google = j["google_gibibytes"][s.name];
        google["bf16"] = s.google_bf16;
        google["q4_0"] = s.google_q4_0;
        if (s.google_mobile > 0) {
          google["mobile"] = s.google_mobile;
          google["mobile_text_only"] = s.google_mobile_text;
        }
      }
      j["recommendation"] = recommendation(fits, input);
    }
    j["version"] = version();
    j["commit"] = commit();
    fmt::print("{}\n", to_json_text(j, 2));
  }

  ModelName model_;
  std::optional<std::string> ram_;
  std::string vram_ = "0";
  std::optional<std::string> context_;
  std::optional<double> bandwidth_;
  std::string kv_ = "int8";
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_fit_command() { return std::make_unique<FitCommand>(); }

}  // namespace carat::app
