#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "app/checksums.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/progress.h"
#include "app/table.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/inspect.h"
#include "convert/inspect_part.h"
#include "convert/lattice_isa.h"
#include "convert/report_file.h"
#include "kernels/cpu/dispatch.h"

namespace carat::app {
namespace {

// "35 (28 local with a window of 512, 7 global)": the layers' pattern in words.
std::string layer_text(const model::Config& c) {
  const auto global = std::count(c.is_global.begin(), c.is_global.end(), true);
  std::string text = fmt::format("{} ({} local with a window of {}, {} global)", c.n_layers,
                                 c.n_layers - global, c.window, global);
  if (c.n_kv_shared_layers > 0) {
    text += fmt::format(", the last {} share K and V", c.n_kv_shared_layers);
  }
  return text;
}

void print_config(const convert::InspectReport& r) {
  const model::Config& c = r.config;
  fmt::print("{}: {}\n\n", r.path, r.kind);
  const auto row = [](const char* name, const std::string& text) {
    fmt::print("{:<12}{}\n", name, text);
  };
  row("parameters", fmt::format("{:.3f} B", static_cast<double>(r.parameters) / 1e9));
  row("layers", layer_text(c));
  row("width", fmt::format("{}, feed-forward {}{}", c.dim, c.ffn_dim,
                           c.double_wide_ffn ? " (twice that in sharing layers)" : ""));
  row("heads", fmt::format("{}; K/V {} x {} local, {} x {} global{}", c.n_heads, c.n_kv_heads_local,
                           c.head_dim_local, c.n_kv_heads_global, c.head_dim_global,
                           c.k_eq_v ? ", K = V in global layers" : ""));
  if (c.ple_dim > 0) row("per layer", fmt::format("embeddings of width {}", c.ple_dim));
  if (c.n_experts > 0) {
    row("experts", fmt::format("{} of {} a token, feed-forward {}", c.n_experts_active, c.n_experts,
                               c.expert_ffn_dim));
  }
  row("vocabulary", r.has_tokenizer
                        ? fmt::format("{} (tokenizer: {})", c.vocab_size, r.tokenizer_size)
                        : fmt::format("{} (no tokenizer)", c.vocab_size));
  row("context", std::to_string(c.max_seq_len));
}

void print_groups(const convert::InspectReport& r) {
  Table table({"type", "tensors", "weights", "size", "bits/weight"});
  const auto add = [&](const std::string& name, const convert::InspectReport::Group& g) {
    const double bits =
        g.weights > 0 ? 8.0 * static_cast<double>(g.bytes) / static_cast<double>(g.weights) : 0;
    table.add({name, std::to_string(g.tensors), std::to_string(g.weights), format_bytes(g.bytes),
               fmt::format("{:.2f}", bits)});
  };
  for (const auto& group : r.types) add(group.name, group);
  for (const auto& group : r.skipped) add("skipped: " + group.name, group);
  fmt::print("\n{}", table.text());
}

void print_codes(const convert::CodedReport& r) {
  if (r.kind.empty()) return;
  fmt::print("\n{}\n", r.kind);
  Table table({"codes", "bits", "a scale per", "parameters", "rounded inputs", "outputs", "size"});
  for (const convert::CodedReport::Class& c : r.classes) {
    table.add({c.name, std::to_string(c.bits),
               c.scale_columns > 0 ? fmt::format("{} columns", c.scale_columns) : "row",
               std::to_string(c.parameters), std::to_string(c.static_inputs),
               std::to_string(c.static_outputs), format_bytes(c.bytes)});
  }
  fmt::print("{}", table.text());
  if (r.static_kv_layers > 0) {
    fmt::print("keys and values of {} layers have fixed steps\n", r.static_kv_layers);
  }
  for (const std::string& sentence : convert::shift_sentences(r)) fmt::print("{}\n", sentence);
}

void print_lattice(const convert::InspectReport& r) {
  if (r.lattice.blocks == 0) return;
  const double percent = 100.0 * static_cast<double>(r.lattice.blocks_on_lattice) /
                         static_cast<double>(r.lattice.blocks);
  fmt::print("\nQ4_0 lattice: {} of {} blocks{} lie on it ({:.2f} %)\n",
             r.lattice.blocks_on_lattice, r.lattice.blocks, r.lattice_sampled ? " looked at" : "",
             percent);
  const convert::LatticeStats& s = r.lattice;
  fmt::print(
      "rules: signed extremum / -8 in {}, absmax / 7 in {}, other peaks in {}, all zero {}\n",
      s.signed8, s.absmax7, s.other_peak, s.zero);
  const std::string unused = convert::unused_codes_text(s);
  if (!unused.empty()) fmt::print("unused codes: {}\n", unused);
}

void print_comparison(const convert::InspectReport& r) {
  if (r.against.empty()) return;
  const convert::Comparison& c = r.comparison;
  fmt::print("\nagainst {}: {} of {} weights equal in bf16, relative RMS difference {:.3g}\n",
             r.against, c.equal, c.weights, c.relative_rms);
  constexpr size_t kShown = 10;
  for (size_t i = 0; i < std::min(kShown, r.different.size()); ++i) {
    fmt::print("  differs: {}\n", r.different[i]);
  }
  if (r.different.size() > kShown) {
    fmt::print("  and {} more (--json names all)\n", r.different.size() - kShown);
  }
}

void print_tensors(const convert::InspectReport& r) {
  Table table({"tensor", "type", "shape", "size", "note"});
  for (const convert::InspectedTensor& t : r.tensors) {
    std::string note = t.skipped.empty() ? "" : "skipped: " + t.skipped;
    if (t.lattice) {
      note = fmt::format("{}/{} blocks on the lattice", t.lattice->blocks_on_lattice,
                         t.lattice->blocks);
    }
    table.add({t.name, carat::name_of(t.dtype), to_string(t.shape), format_bytes(t.bytes), note});
  }
  fmt::print("\n{}", table.text());
}

void print_part(const convert::PartReport& r, bool tensors) {
  fmt::print("{}: {}, {}\n\n", r.path, r.container, r.role);
  fmt::print("{}\n{:.1f} M parameters, {}\n\n", r.description,
             static_cast<double>(r.parameters) / 1e6, format_bytes(r.bytes));
  Table table({"type", "tensors", "weights", "size"});
  for (const auto& g : r.types) {
    table.add(
        {g.name, std::to_string(g.tensors), std::to_string(g.weights), format_bytes(g.bytes)});
  }
  fmt::print("{}", table.text());
  if (!tensors) return;
  Table all({"tensor", "type", "shape", "size"});
  for (const convert::InspectedTensor& t : r.tensors) {
    all.add({t.name, carat::name_of(t.dtype), to_string(t.shape), format_bytes(t.bytes)});
  }
  fmt::print("\n{}", all.text());
}

class InspectCommand final : public Command {
 public:
  std::string name() const override { return "inspect"; }

  HelpText help() const override {
    return {.summary = "tells what a checkpoint is",
            .description =
                "Config, tensors, types and sizes of a GGUF file, a safetensors file or a model "
                "directory, drafters and mmproj files among them; what of it carat does not use; "
                "and whether float weights lie on the "
                "Q4_0 lattice, as those of quantization-aware training do, and by which rule.\n"
                "Ends with exit code 3 if a checksum differs, or a weight from --against.",
            .examples = {{"carat inspect model.gguf", "a page about the model"},
                         {"carat inspect qat/ --full", "judges every block, not a sample"},
                         {"carat inspect qat/ --against qat-q4_0.gguf",
                          "whether a conversion lost anything"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "PATH",
             .target = &options_.path,
             .required = true,
             .help = "GGUF or safetensors file, or model directory"},
            {.names = "--checksum",
             .target = &checksum_,
             .help = "only prints the SHA-256 of the file (of all parts of a split one), or of the "
                     "directory's weights, and compares it with what the Hub recorded at the "
                     "download"},
            {.names = "--checksums",
             .value = "LIST",
             .target = &checksums_,
             .help = "the same, compared with a list of sha256sum or a Git LFS pointer"},
            {.names = "--against",
             .value = "OTHER",
             .target = &options_.against,
             .help = "another checkpoint of the same model, compared weight for weight in "
                     "bfloat16"},
            {.names = "--full",
             .target = &options_.full,
             .help = "looks at every block of every matrix for the lattice"},
            {.names = "--tensors", .target = &tensors_, .help = "lists every tensor"},
            {.names = "--no-lattice", .target = &no_lattice_, .help = "reads no weights"},
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment& environment) override {
    convert::use_lattice_isa(kernels::choose_kernels(environment.isa).isa);
    if (checksum_ || !checksums_.empty()) {
      return print_checksums(options_.path, checksums_, json_, environment.stop) ? kDone
                                                                                 : kCheckFailed;
    }
    if (const auto part = convert::inspect_part(options_.path)) {
      if (!options_.against.empty()) {
        throw Error({"drafters and towers are not compared", options_.path, "--against", "", "",
                     "convert one to the other's format and compare their checksums"});
      }
      if (json_) {
        fmt::print("{}\n", to_json_text(convert::to_json(*part), 2));
      } else {
        print_part(*part, tensors_);
      }
      return kDone;
    }
    options_.lattice = !no_lattice_;
    options_.threads = resolve_threads(threads_);
    options_.stop = environment.stop;
    Progress progress("MB");
    options_.progress = [&](int64_t done, int64_t total, const std::string& note) {
      progress.update(done / 1'000'000, total / 1'000'000, note);
    };
    const convert::InspectReport report = convert::inspect(options_);
    progress.finish();
    if (json_) {
      fmt::print("{}\n", to_json_text(convert::to_json(report), 2));
      return verdict(report);
    }
    print_config(report);
    print_groups(report);
    print_codes(report.codes);
    if (tensors_) print_tensors(report);
    print_lattice(report);
    print_comparison(report);
    for (const std::string& note : report.notes) fmt::print(stderr, "note: {}\n", note);
    return verdict(report);
  }

 private:
  static int verdict(const convert::InspectReport& r) {
    if (r.different.empty()) return kDone;
    fmt::print(stderr, "carat inspect: {} tensors differ from {}\n", r.different.size(), r.against);
    return kCheckFailed;
  }

  convert::InspectOptions options_;
  bool tensors_ = false;
  bool no_lattice_ = false;
  int64_t threads_ = 0;
  std::string checksums_;
  bool checksum_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }

}  // namespace carat::app
