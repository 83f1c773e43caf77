#include "convert/synth.h"

#include <filesystem>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "convert/gguf_fields.h"
#include "convert/recipe.h"
#include "convert/synth_parts.h"
#include "convert/synth_pieces.h"
#include "convert/target.h"
#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "model/config.h"
#include "model/tensors.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxShardBytes = 5'000'000'000;

struct CodedType {
  const char* name;
  CodedKind kind;
};
constexpr CodedType kCodedTypes[] = {{"w4a16-ct", CodedKind::kW4A16},
                                     {"mobile-transformers", CodedKind::kMobileTransformers},
                                     {"mobile-ct", CodedKind::kMobileCt}};

std::optional<CodedKind> coded_kind(const SynthOptions& options) {
  for (const CodedType& t : kCodedTypes) {
    if (options.type != t.name) continue;
    if (!options.gguf) return t.kind;
    throw Error({"GGUF files hold no such codes", options.target, "", "a type of GGUF files",
                 options.type, "--format hf writes it"});
  }
  return std::nullopt;
}

// What will be written.
struct Plan {
  std::optional<CodedKind> kind;
  model::Config config;
  std::vector<SynthPiece> pieces;

  explicit Plan(const SynthOptions& options)
      : kind(coded_kind(options)), config(synth_config(options)) {
    if (kind) config = coded_synth_config(std::move(config), *kind);
    pieces = kind ? coded_pieces(options, config, *kind) : float_pieces(options, config);
  }
  std::vector<io::TensorSpec> specs() const {
    std::vector<io::TensorSpec> specs;
    for (const SynthPiece& p : pieces) specs.push_back(p.spec);
    return specs;
  }
};

void write_tensors(const Plan& plan, const SynthOptions& options, io::TensorWriter& writer) {
  for (const SynthPiece& p : plan.pieces) {
    writer.begin(p.spec.name);
    p.make([&](std::span<const std::byte> bytes) {
      if (options.stop && options.stop->load(std::memory_order_relaxed)) throw Interrupted();
      writer.append(bytes);
      if (options.progress) options.progress(writer.written_bytes(), writer.total_bytes());
    });
  }
}

io::GgufFields fields_of(const Plan& plan, const SynthOptions& options, const text::Vocab& vocab) {
  return gguf_fields({.config = &plan.config,
                      .vocab = &vocab,
                      .generation = nullptr,
                      .name = "random " + options.size,
                      .chat_template = {},
                      .file_type = gguf_recipe(options.type).file_type});
}

Texts texts_of(const Plan& plan, const SynthOptions& options, const text::Vocab& vocab) {
  return hf_texts(plan.kind ? coded_config_json(plan.config, *plan.kind)
                            : float_config_json(options, plan.config),
                  &vocab, {});
}

void write(const Plan& plan, const SynthOptions& options) {
  const text::Vocab vocab = synthetic_vocab(static_cast<int32_t>(plan.config.vocab_size));
  TargetParts parts;
  parts.path = options.target;
  parts.is_folder = !options.gguf;
  parts.specs = plan.specs();
  if (options.gguf) {
    parts.fields = fields_of(plan, options, vocab);
    parts.rope_freqs = model::rope_freqs(plan.config);
  } else {
    parts.texts = texts_of(plan, options, vocab);
    parts.max_file_bytes = kMaxShardBytes;
  }
  Target target(std::move(parts), false);
  write_tensors(plan, options, target.tensors());
  target.finish();
}

void check_target(const SynthOptions& options) {
  std::error_code ignored;
  if (!fs::exists(options.target, ignored)) return;
  if (fs::is_directory(options.target, ignored) == options.gguf) {
    throw Error({"the target is of the wrong kind",
                 options.target,
                 {},
                 options.gguf ? "a file" : "a directory",
                 options.gguf ? "a directory" : "a file",
                 {}});
  }
  if (options.overwrite) return;
  if (!options.gguf && fs::is_empty(options.target, ignored)) return;
  throw Error({"the target exists already", options.target, {}, {}, {}, "--force replaces it"});
}

}  // namespace

std::vector<std::string> synth_coded_types() {
  std::vector<std::string> names;
  for (const CodedType& t : kCodedTypes) names.emplace_back(t.name);
  return names;
}

SynthReport write_synthetic(const SynthOptions& options) {
  if (is_part_size(options.size)) {
    check_target(options);
    return write_synthetic_part(options);
  }
  const Plan plan(options);
  check_target(options);
  SynthReport report;
  for (const SynthPiece& p : plan.pieces) {
    report.bytes += *byte_count(p.spec.dtype, p.spec.shape);
  }
  check_disk_space(options.target, report.bytes);
  report.tensors = static_cast<int64_t>(plan.pieces.size());
  report.parameters = model::parameter_count(plan.config);
  write(plan, options);
  return report;
}

int64_t synthetic_bytes(const SynthOptions& options, const text::Vocab& vocab) {
  const Plan plan(options);
  if (options.gguf) {
    TargetParts parts;
    parts.specs = plan.specs();
    parts.rope_freqs = model::rope_freqs(plan.config);
    return io::gguf_file_bytes(fields_of(plan, options, vocab), all_specs(parts));
  }
  int64_t bytes = io::safetensors_directory_bytes(plan.specs(), kMaxShardBytes);
  for (const auto& [name, text] : texts_of(plan, options, vocab)) {
    bytes += static_cast<int64_t>(text.size());
  }
  return bytes;
}

}  // namespace carat::convert
