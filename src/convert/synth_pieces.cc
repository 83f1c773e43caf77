// Random checkpoints of floats and blocks, and the shapes that are asked for.
#include "convert/synth_pieces.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <utility>

#include "base/error.h"
#include "convert/recipe.h"
#include "model/random_tensor.h"
#include "model/tensors.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

// The type of a directory's tensors. Throws Error.
DType directory_type(const SynthOptions& options) {
  const DType type = gguf_recipe(options.type).matrix;
  if (type == DType::kQ4_0) return DType::kBF16;
  if (info(type).safetensors) return type;
  throw Error({"a directory of safetensors files has no such type", options.target, "",
               fmt::format("f32, f16, bf16, q4_0, {}", fmt::join(synth_coded_types(), ", ")),
               options.type, "--format gguf has it"});
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

// Makes values of one type and writes them in another: bfloat16 of Q4_0, or the same.
void make_tensor(model::RandomTensor values, DType made, int64_t total, bool to_bf16,
                 const SynthSink& sink) {
  std::vector<std::byte> bytes, converted;
  std::vector<float> floats;
  const int64_t window = kSynthWindow / info(made).block_bytes * info(made).block_bytes;
  for (int64_t at = 0; at < total; at += window) {
    bytes.resize(static_cast<size_t>(std::min(window, total - at)));
    values.next(bytes);
    if (to_bf16) to_bf16_values(bytes, floats, converted);
    sink(to_bf16 ? converted : bytes);
  }
}

// The first global layer ends the pattern that the others repeat.
int64_t pattern_length(const model::Config& config) {
  int64_t n = 1;
  while (!config.is_global[static_cast<size_t>(n - 1)]) ++n;
  return n;
}

}  // namespace

model::Config synth_config(const SynthOptions& options) {
  model::Config c = model::config_of_size(options.size);
  if (options.layers == 0 || options.layers == c.n_layers) return c;
  const int64_t step = pattern_length(c);
  if (options.layers < 0 || options.layers > c.n_layers || options.layers % step != 0) {
    throw Error({"no such number of layers", "", "--layers",
                 fmt::format("a multiple of {} up to {}", step, c.n_layers),
                 fmt::format("{}", options.layers), ""});
  }
  const int64_t periods = options.layers / step;
  // To the nearest, but somebody has to own K and V.
  const int64_t sharing = (2 * periods * c.n_kv_shared_layers + c.n_layers) / (2 * c.n_layers);
  c.n_kv_shared_layers = std::min(sharing, periods - 1) * step;
  c.n_layers = options.layers;
  c.is_global.resize(static_cast<size_t>(c.n_layers));
  c.validate();
  return c;
}

std::vector<SynthPiece> float_pieces(const SynthOptions& options, const model::Config& config) {
  std::vector<SynthPiece> pieces;
  for (const model::TensorRef t : model::required_tensors(config)) {
    io::TensorSpec spec{model::hf_name(t), DType::kF32, model::shape_of(config, t)};
    DType made;
    if (options.gguf) {
      spec.name = model::gguf_name(t);
      spec.dtype = made = type_in(gguf_recipe(options.type), config, t);
    } else {
      const bool keep = model::row_of(t.kind).cls == model::TensorClass::kKeep;
      spec.dtype = directory_type(options);
      made = options.type == "q4_0" && !keep ? DType::kQ4_0 : spec.dtype;
    }
    const model::RandomTensor values(config, t, made, options.seed);
    pieces.push_back({spec, [=, total = *byte_count(made, spec.shape)](const SynthSink& sink) {
                        make_tensor(values, made, total, made != spec.dtype, sink);
                      }});
  }
  return pieces;
}

Json float_config_json(const SynthOptions& options, const model::Config& config) {
  const DType type = directory_type(options);
  const char* name = type == DType::kF32 ? "float32" : type == DType::kF16 ? "float16" : "bfloat16";
  return model::config_to_hf(config, name);
}

}  // namespace carat::convert
