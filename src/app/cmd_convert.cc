#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/memory.h"
#include "app/outputs.h"
#include "app/progress.h"
#include "app/table.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/convert.h"
#include "convert/lattice_isa.h"
#include "convert/report_file.h"
#include "kernels/cpu/dispatch.h"

namespace carat::app {
namespace {

// What to open: of a split file its first part.
std::string name_of_result(const convert::ConvertReport& report) {
  const auto& files = report.target_files;
  if (convert::is_directory(report.options.format) || files.size() < 2) {
    return report.options.target;
  }
  return fmt::format("{} and {} more", files.front().path, files.size() - 1);
}

// "99.987 %", never rounded up to 100.
std::string share(int64_t part, int64_t whole) {
  if (whole <= 0) return "-";
  if (part == whole) return "100 %";
  const double percent = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return fmt::format("{:.3f} %", std::min(percent, 99.999));
}

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const convert::GgufRecipe& r : convert::gguf_recipes()) names.emplace_back(r.name);
  return names;
}

class ConvertCommand final : public Command {
 public:
  std::string name() const override { return "convert"; }

  HelpText help() const override {
    return {
        .summary = "writes a checkpoint in another format",
        .description =
            "Reads a model directory, a .safetensors or a .gguf file and writes it in the format "
            "asked for, as a stream: memory stays below 1 GB whatever the size.\n"
            "Weights of quantization-aware training lie on the Q4_0 lattice. For gguf-q4_0 and "
            "gguf-google the lattice is found again: gguf-q4_0 is exact; gguf-google is too but "
            "for its tables (Q6_K) and the per-layer projection (F16). A matrix off the lattice "
            "keeps its weights and is named, unless --round says otherwise. hf-bf16, "
            "gguf-bf16, w4a16-ct and the mobile kinds are refused where they would lose something "
            "that --accept does not name; gguf-google and recipes of quantized types are asked to "
            "round. Parts for images and sound go from directory to directory as they are.\n"
            "The target appears under its name only when it is complete. Until then it is DST.part "
            "with a journal: after Ctrl-C, a kill or a power cut the same command goes on behind "
            "the last complete tensor, once it has proved what is there; --force begins anew.\n"
            "The report with everything in it is kept as DST.carat.json.",
        .examples = {
            {"carat convert gemma-4-E2B-it-qat/ e2b-q4_0.gguf",
             "the lossless 4-bit file of a QAT checkpoint"},
            {"carat convert model/ model.gguf --to gguf-q4_0 --round",
             "rounds an ordinary checkpoint to 4 bits"},
            {"carat convert model.gguf model/ --to hf-bf16",
             "a Hugging Face directory that transformers loads"},
            {"carat convert qat/ ct/ --to w4a16-ct --accept rounded-scales",
             "for vLLM and SGLang, whose scales are bfloat16"},
            {"carat convert model/ q6.gguf --to gguf --recipe q6_k", "every matrix Q6_K"},
            {"carat convert model/ q4.gguf --to gguf --recipe q4_k_m --imatrix model-imatrix.gguf",
             "rounded with what `carat imatrix` found"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "SRC",
         .target = &options_.source,
         .required = true,
         .help = "GGUF or safetensors file, or model directory"},
        {.names = "DST",
         .target = &options_.target,
         .required = true,
         .help = "file or directory to write"},
        {.names = "--to",
         .value = "FORMAT",
         .target = &format_,
         .help = "format of the result",
         .choices = convert::format_names()},
        {.names = "--recipe",
         .value = "NAME",
         .target = &recipe_,
         .help = fmt::format("types of a GGUF file (--to gguf): {}; or a .json file that gives "
                             "single tensors types of their own",
                             fmt::join(recipe_names(), ", "))},
        {.names = "--accept",
         .value = "LOSSES",
         .target = &accept_,
         .help = fmt::format("converts although this is lost, and reports how much: {}, separated "
                             "by commas",
                             fmt::join(convert::loss_names(), ", "))},
        {.names = "--force", .target = &options_.overwrite, .help = "replaces an existing target"},
        {.names = "--round",
         .target = &options_.force_q4_0,
         .help =
             "rounds every matrix to Q4_0, on the lattice or not (--to gguf-q4_0 or gguf-google)"},
        {.names = "--min-share",
         .value = "X",
         .target = &options_.min_lattice_share,
         .help = "share of a matrix's blocks that must lie on the lattice for it to become "
                 "Q4_0",
         .lowest = 0,
         .highest = 1},
        {.names = "--split-size",
         .value = "SIZE",
         .target = &split_size_,
         .help = "most bytes of tensors in one file of the result (4G); a GGUF file becomes "
                 "DST-00001-of-0000N.gguf and so on, as llama.cpp splits it",
         .default_text = "GGUF: not split; shards of directories: 5 GB"},
        {.names = "--imatrix",
         .value = "FILE",
         .target = &options_.imatrix,
         .help =
             "an importance matrix (`carat imatrix`, llama-imatrix): what is rounded loses least "
             "where the model looks (GGUF files)"},
        {.names = "--undo-scale-shift",
         .target = &options_.undo_scale_shift,
         .help = "for re-exported w4a16 checkpoints whose scales are 8/7.5 too large (inspect "
                 "tells): restores the lattice"},
        {.names = "--no-report",
         .target = &no_report_,
         .help = "writes no DST.carat.json beside the result"},
        threads_option(&threads_),
        json_option(&json_)};
  }

  int run(const Environment& environment) override {
    convert::use_lattice_isa(kernels::choose_kernels(environment.isa).isa);
    options_.format = convert::format_from_name(format_);
    read_recipe();
    if (options_.force_q4_0 && options_.format != convert::Format::kGgufQ4_0 &&
        options_.format != convert::Format::kGgufGoogle) {
      throw UsageError("--round needs --to gguf-q4_0 or gguf-google");
    }
    try {
      options_.accepted = convert::Losses::from_text(accept_);
    } catch (const Error& e) {
      throw UsageError(e.what());
    }
    if (split_size_) {
      options_.max_file_bytes = options_.max_shard_bytes =
          parse_bytes(*split_size_, "--split-size");
    }
    options_.threads = resolve_threads(threads_);
    options_.stop = environment.stop;
    Progress progress("MB");
    options_.progress = [&](int64_t done, int64_t total, const std::string& note) {
      progress.update(done / 1'000'000, total / 1'000'000, note);
    };
    options_.note = [&](const std::string& text) {
      progress.finish();
      fmt::print(stderr, "note: {}\n", text);
    };
    refuse_inputs({.option = "DST", .path = options_.target}, {options_.imatrix, recipe_});
    const convert::ConvertReport report = convert::convert(options_);
    progress.finish();
    if (!no_report_) convert::write_report_file(report);
    if (json_) {
      fmt::print("{}\n", to_json_text(convert::to_json(report), 2));
    } else {
      print(report);
    }
    return kDone;
  }

 private:
  void read_recipe() {
    if (recipe_.empty()) return;
    if (options_.format != convert::Format::kGguf) {
      throw UsageError("--recipe needs --to gguf");
    }
    if (recipe_.ends_with(".json")) {
      options_.recipe = convert::read_recipe(recipe_);
      return;
    }
    const std::vector<std::string> names = recipe_names();
    if (std::find(names.begin(), names.end(), recipe_) == names.end()) {
      throw UsageError(fmt::format("--recipe must be a .json file or one of {}; not '{}'",
                                   fmt::join(names, ", "), recipe_));
    }
    options_.recipe.base = recipe_;
  }

  static void print(const convert::ConvertReport& report) {
    struct Group {
      int64_t tensors = 0, bytes = 0;
    };
    std::map<std::pair<std::string, std::string>, Group> groups;  // from, to
    for (const convert::TensorReport& t : report.tensors) {
      Group& group = groups[{carat::name_of(t.from), carat::name_of(t.to)}];
      ++group.tensors;
      group.bytes += t.bytes;
    }
    Table table({"from", "to", "tensors", "size"});
    for (const auto& [types, group] : groups) {
      table.add(
          {types.first, types.second, std::to_string(group.tensors), format_bytes(group.bytes)});
    }
    fmt::print("{}\n", table.text());
    if (report.lattice.blocks > 0) {
      fmt::print("blocks on the Q4_0 lattice  {} of {} ({})\n", report.lattice.blocks_on_lattice,
                 report.lattice.blocks,
                 share(report.lattice.blocks_on_lattice, report.lattice.blocks));
    }
    fmt::print("weights reproduced exactly  {} of {} ({})\n", report.weights_bit_exact,
               report.weights, share(report.weights_bit_exact, report.weights));
    print_classes(report);
    print_codes(report);
    print_losses(report);
    print_kept(report);
    for (const convert::FileDigest& f : report.source_files) print_digest("source", f);
    for (const convert::FileDigest& f : report.target_files) print_digest("result", f);
    for (const std::string& note : report.notes) fmt::print(stderr, "note: {}\n", note);
    if (!report.hint.empty()) fmt::print(stderr, "hint: {}\n", report.hint);
    fmt::print("wrote {} ({}, from {}) in {}\n", name_of_result(report),
               format_bytes(report.target_bytes), format_bytes(report.source_bytes),
               format_duration(report.seconds));
  }

  static void print_digest(const char* what, const convert::FileDigest& f) {
    fmt::print("SHA-256 of the {}  {}\n  {}{}\n", what, f.path, f.sha256,
               f.recorded.empty() ? "" : "  (as the Hub recorded it)");
  }

  // How often each code occurs, by the class of the matrices.
  static void print_codes(const convert::ConvertReport& report) {
    std::vector<std::string> head{"codes, % of weights"};
    for (int code = -8; code < 8; ++code) head.push_back(std::to_string(code));
    Table table(std::move(head));
    bool any = false;
    for (const convert::ClassReport& c : convert::class_reports(report.tensors)) {
      const auto shares = convert::code_shares(c.lattice);
      if (shares[0].empty()) continue;
      std::vector<std::string> row{c.name};
      row.insert(row.end(), shares.begin(), shares.end());
      table.add(std::move(row));
      any = true;
    }
    if (any) fmt::print("{}\n", table.text());
  }

  // What was found on the lattice, by the class of the matrices.
  static void print_classes(const convert::ConvertReport& report) {
    if (report.lattice.blocks == 0) return;
    Table table({"", "on the lattice", "exact", "worst error", "rule", "unused codes"});
    for (const convert::ClassReport& c : convert::class_reports(report.tensors)) {
      if (c.lattice.blocks == 0) continue;
      table.add({c.name, share(c.lattice.blocks_on_lattice, c.lattice.blocks),
                 share(c.weights_bit_exact, c.weights),
                 fmt::format("{:.2g}", c.lattice.worst_relative_error),
                 convert::rule_text(c.lattice), convert::unused_codes_text(c.lattice)});
    }
    fmt::print("\n{}\n", table.text());
  }

  static void print_losses(const convert::ConvertReport& report) {
    if (report.error.squared_error > 0) {
      fmt::print(
          "error of the weights written {:.3g} of their size (root mean square), worst "
          "{:.3g}\n",
          report.error.relative_rms(), report.error.worst_relative);
    }
    if (!report.losses.empty()) fmt::print("lost as accepted: {}\n", report.losses.text());
  }

  // Matrices that are not what the format asks for, the first few by name.
  static void print_kept(const convert::ConvertReport& report) {
    if (report.matrices_kept == 0) return;
    constexpr int64_t kShown = 10;
    fmt::print("{} of {} matrices were kept as they are:\n", report.matrices_kept, report.matrices);
    int64_t shown = 0;
    for (const convert::TensorReport& t : report.tensors) {
      if (t.note.empty()) continue;
      if (shown++ == kShown) break;
      fmt::print("  {} ({}): {}\n", t.name, carat::name_of(t.to), t.note);
    }
    if (report.matrices_kept > kShown) {
      fmt::print("  and {} more (--json names all)\n", report.matrices_kept - kShown);
    }
  }

  convert::ConvertOptions options_;
  std::string format_ = "gguf-q4_0", recipe_, accept_;
  std::optional<std::string> split_size_;
  int64_t threads_ = 0;
  bool json_ = false, no_report_ = false;
};

}  // namespace

std::unique_ptr<Command> make_convert_command() { return std::make_unique<ConvertCommand>(); }

}  // namespace carat::app
