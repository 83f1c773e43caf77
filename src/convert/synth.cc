#include "convert/synth.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "convert/gguf_fields.h"
#include "convert/recipe.h"
#include "convert/target.h"
#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "model/config.h"
#include "model/random_tensor.h"
#include "model/tensors.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWindow = int64_t{4} << 20;  // bytes made at a time
constexpr int64_t kMaxShardBytes = 5'000'000'000;

// A tensor as it is written, and the type its random values are made in.
struct Planned {
  model::TensorRef ref;
  io::TensorSpec spec;
  DType made;
};

// The type of a directory's tensors. Throws Error.
DType directory_type(const SynthOptions& options) {
  const DType type = gguf_recipe(options.type).matrix;
  if (type == DType::kQ4_0) return DType::kBF16;
  if (info(type).safetensors) return type;
  throw Error({"a directory of safetensors files has no such type",
               options.target,
               {},
               "f32, f16, bf16 or q4_0",
               options.type,
               "--format gguf has it"});
}

Planned plan(const model::Config& config, model::TensorRef ref, const SynthOptions& options) {
  const Shape shape = model::shape_of(config, ref);
  if (options.gguf) {
    const DType type = type_in(gguf_recipe(options.type), config, ref);
    return {ref, {model::gguf_name(ref), type, shape}, type};
  }
  const bool lattice = options.type == "q4_0";
  const bool keep = model::row_of(ref.kind).cls == model::TensorClass::kKeep;
  const DType written = directory_type(options);
  return {ref, {model::hf_name(ref), written, shape}, lattice && !keep ? DType::kQ4_0 : written};
}

void check_stop(const SynthOptions& options) {
  if (options.stop && options.stop->load(std::memory_order_relaxed)) throw Interrupted();
}

// Q4_0 blocks as the bfloat16 values nearest to theirs.
void to_bf16_values(std::span<const std::byte> blocks, std::vector<float>& floats,
                    std::vector<std::byte>& out) {
  const auto n = static_cast<int64_t>(blocks.size()) / info(DType::kQ4_0).block_bytes *
                 info(DType::kQ4_0).block_elements;
  floats.resize(static_cast<size_t>(n));
  out.resize(static_cast<size_t>(row_bytes(DType::kBF16, n)));
  quant::decode_row(DType::kQ4_0, blocks.data(), floats.data(), n);
  quant::encode_row(DType::kBF16, floats.data(), out.data(), n);
}

void write_tensors(const model::Config& config, const std::vector<Planned>& tensors,
                   const SynthOptions& options, io::TensorWriter& writer) {
  std::vector<std::byte> made, converted;
  std::vector<float> floats;
  for (const Planned& t : tensors) {
    writer.begin(t.spec.name);
    model::RandomTensor values(config, t.ref, t.made, options.seed);
    const int64_t total = *byte_count(t.made, t.spec.shape);
    const int64_t window = kWindow / info(t.made).block_bytes * info(t.made).block_bytes;
    for (int64_t at = 0; at < total; at += window) {
      check_stop(options);
      made.resize(static_cast<size_t>(std::min(window, total - at)));
      values.next(made);
      if (t.made == t.spec.dtype) {
        writer.append(made);
      } else {
        to_bf16_values(made, floats, converted);
        writer.append(converted);
      }
      if (options.progress) options.progress(writer.written_bytes(), writer.total_bytes());
    }
  }
}

std::vector<Planned> plan_all(const model::Config& config, const SynthOptions& options) {
  std::vector<Planned> tensors;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    tensors.push_back(plan(config, ref, options));
  }
  return tensors;
}

std::vector<io::TensorSpec> specs_of(const std::vector<Planned>& tensors) {
  std::vector<io::TensorSpec> specs;
  for (const Planned& t : tensors) specs.push_back(t.spec);
  return specs;
}

// What a GGUF file holds before the bytes of its tensors.
struct GgufHead {
  io::GgufFields fields;
  std::vector<io::TensorSpec> specs;
  std::vector<float> divisors;  // the last tensor
};

GgufHead gguf_head(const model::Config& config, const std::vector<Planned>& tensors,
                   const SynthOptions& options, const text::Vocab& vocab) {
  GgufHead head;
  head.fields = gguf_fields({.config = &config,
                             .vocab = &vocab,
                             .generation = nullptr,
                             .name = "random " + options.size,
                             .chat_template = {},
                             .file_type = gguf_recipe(options.type).file_type});
  head.specs = specs_of(tensors);
  head.divisors = model::rope_freqs(config);
  head.specs.push_back(
      {model::kRopeFreqsName, DType::kF32, {static_cast<int64_t>(head.divisors.size())}});
  return head;
}

void write_gguf(const model::Config& config, const std::vector<Planned>& tensors,
                const SynthOptions& options) {
  const text::Vocab vocab = synthetic_vocab(static_cast<int32_t>(config.vocab_size));
  GgufHead head = gguf_head(config, tensors, options, vocab);
  io::GgufWriter writer(options.target, head.fields, std::move(head.specs));
  write_tensors(config, tensors, options, writer);
  writer.write(model::kRopeFreqsName, std::as_bytes(std::span(head.divisors)));
  writer.finish();
}

// A directory of our own making, removed again unless keep() was called.
class NewDirectory {
 public:
  explicit NewDirectory(const std::string& path) : path_(path) {
    std::error_code code;
    made_ = fs::create_directory(path_, code);
    if (code) throw Error({"cannot make the directory: " + code.message(), path, {}, {}, {}, {}});
  }
  ~NewDirectory() {
    std::error_code ignored;
    if (made_) fs::remove(path_, ignored);  // only if it is empty
  }
  NewDirectory(const NewDirectory&) = delete;
  NewDirectory& operator=(const NewDirectory&) = delete;
  void keep() { made_ = false; }

 private:
  fs::path path_;
  bool made_ = false;
};

const char* torch_name(DType type) {
  if (type == DType::kF32) return "float32";
  return type == DType::kF16 ? "float16" : "bfloat16";
}

// Files of a directory beside its tensors: name and text.
using Texts = std::vector<std::pair<const char*, std::string>>;

Texts hf_texts(const model::Config& config, const SynthOptions& options, const text::Vocab& vocab) {
  return {
      {"config.json",
       to_json_text(model::config_to_hf(config, torch_name(directory_type(options))), 2) + "\n"},
      {"tokenizer.json", text::to_tokenizer_json(vocab)},
      {"tokenizer_config.json", text::to_tokenizer_config_json(vocab)}};
}

void write_hf(const model::Config& config, const std::vector<Planned>& tensors,
              const SynthOptions& options) {
  NewDirectory directory(options.target);
  const text::Vocab vocab = synthetic_vocab(static_cast<int32_t>(config.vocab_size));
  const Texts texts = hf_texts(config, options, vocab);
  std::vector<std::unique_ptr<AtomicFile>> files;
  for (const auto& [name, text] : texts) {
    files.push_back(std::make_unique<AtomicFile>((fs::path(options.target) / name).string()));
    files.back()->write(text);
  }
  {
    const auto writer =
        io::write_safetensors_directory(options.target, specs_of(tensors), kMaxShardBytes);
    write_tensors(config, tensors, options, *writer);
    writer->finish();
  }
  for (const auto& file : files) file->commit();
  directory.keep();
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

SynthReport write_synthetic(const SynthOptions& options) {
  const model::Config config = model::config_of_size(options.size);
  check_target(options);
  const std::vector<Planned> tensors = plan_all(config, options);
  SynthReport report;
  for (const Planned& t : tensors) report.bytes += *byte_count(t.spec.dtype, t.spec.shape);
  check_disk_space(options.target, report.bytes);
  report.tensors = static_cast<int64_t>(tensors.size());
  report.parameters = model::parameter_count(config);
  if (options.gguf) {
    write_gguf(config, tensors, options);
  } else {
    write_hf(config, tensors, options);
  }
  return report;
}

int64_t synthetic_bytes(const SynthOptions& options, const text::Vocab& vocab) {
  const model::Config config = model::config_of_size(options.size);
  const std::vector<Planned> tensors = plan_all(config, options);
  if (options.gguf) {
    GgufHead head = gguf_head(config, tensors, options, vocab);
    return io::gguf_file_bytes(head.fields, std::move(head.specs));
  }
  int64_t bytes = io::safetensors_directory_bytes(specs_of(tensors), kMaxShardBytes);
  for (const auto& [name, text] : hf_texts(config, options, vocab)) {
    bytes += static_cast<int64_t>(text.size());
  }
  return bytes;
}

}  // namespace carat::convert
