// Random checkpoints of codes, with the names, types and scales of the published ones.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "base/half.h"
#include "base/rng.h"
#include "convert/synth_pieces.h"
#include "model/random_codes.h"
#include "model/random_tensor.h"
#include "model/tensors.h"

namespace carat::convert {
namespace {

using K = model::TensorKind;
constexpr model::Naming kNaming = model::Naming::kHfMultimodal;
constexpr float kCodes = 127.0f;
constexpr float kVCacheRange = 6.0f;  // of every published checkpoint

// What a linear layer reads and gives stays within these bounds but for a few values in a million:
// normed vectors have elements of unit size, and so have products with matrices that keep the size.
// The product of gelu and a second vector has a longer tail.
struct Ranges {
  float input, output;
};
Ranges ranges_of(K kind) {
  switch (kind) {
    case K::kO:
      return {5.0f, 5.0f};
    case K::kDown:
    case K::kPleOut:
      return {10.0f, 5.0f};
    case K::kLmHead:
      return {0.0f, 0.0f};
    default:
      return {6.0f, 6.0f};
  }
}

// Layers that read the same vector share its scale: q, k and v, and gate and up.
K first_reader(K kind) {
  if (kind == K::kK || kind == K::kV) return K::kQ;
  return kind == K::kUp ? K::kGate : kind;
}

// Between 1 and 1.1, different from tensor to tensor.
float slack(K kind, int64_t layer, uint64_t seed) {
  return 1.0f + 0.1f * static_cast<float>(Rng(model::random_seed({kind, layer}, seed)).uniform());
}

float input_scale(model::TensorRef t, uint64_t seed) {
  return ranges_of(t.kind).input * slack(first_reader(t.kind), t.layer, seed) / kCodes;
}
float output_scale(model::TensorRef t, uint64_t seed) {
  return ranges_of(t.kind).output * slack(t.kind, t.layer, seed + 1) / kCodes;
}

template <class T>
SynthPiece literal(std::string name, DType dtype, Shape shape, std::vector<T> values) {
  return {{std::move(name), dtype, std::move(shape)},
          [values = std::move(values)](const SynthSink& sink) {
            sink(std::as_bytes(std::span(values)));
          }};
}

SynthPiece scalar(const std::string& name, float value) {
  return literal<float>(name, DType::kF32, {}, {value});
}

void make_codes(model::RandomCodes random, int64_t total, const SynthSink& sink) {
  std::vector<std::byte> window;
  for (int64_t at = 0; at < total; at += kSynthWindow) {
    window.resize(static_cast<size_t>(std::min(kSynthWindow, total - at)));
    random.next(window);
    sink(window);
  }
}

void make_scales(model::RandomCodes random, DType dtype, int64_t n, const SynthSink& sink) {
  std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, n)));
  for (int64_t i = 0; i < n; ++i) {
    const float scale = random.next_scale();
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[static_cast<size_t>(4 * i)], &scale, 4);
    } else {
      const BF16 half = to_bf16(scale);
      std::memcpy(&bytes[static_cast<size_t>(2 * i)], &half, 2);
    }
  }
  sink(bytes);
}

void make_floats(model::RandomTensor random, int64_t total, const SynthSink& sink) {
  std::vector<std::byte> window;
  for (int64_t at = 0; at < total; at += kSynthWindow) {
    window.resize(static_cast<size_t>(std::min(kSynthWindow, total - at)));
    random.next(window);
    sink(window);
  }
}

// Gathers the pieces of one checkpoint.
class Gatherer {
 public:
  Gatherer(const SynthOptions& options, const model::Config& config, CodedKind kind)
      : options_(options), config_(config), kind_(kind) {}

  void add(model::TensorRef t) {
    const Shape shape = model::shape_of(config_, t);
    const std::string name = model::name_of(t, kNaming);
    if (const auto layout = coded_layout(kind_, config_, t)) return add_coded(t, name, *layout);
    SynthPiece piece{{name, DType::kBF16, shape}, {}};
    const model::RandomTensor random(config_, t, DType::kBF16, options_.seed);
    piece.make = [random, n = *byte_count(DType::kBF16, shape)](const SynthSink& sink) {
      make_floats(random, n, sink);
    };
    pieces_.push_back(std::move(piece));
  }

  // K of each owner differs a little; sharing layers repeat their owner's.
  void add_cache_scales(int64_t layer) {
    const int64_t owner = config_.layer(layer).kv_layer;
    const float k = 6.0f * slack(K::kKNorm, owner, options_.seed) / kCodes;
    pieces_.push_back(scalar(cache_scale_name(kNaming, layer, 'k'), k));
    pieces_.push_back(scalar(cache_scale_name(kNaming, layer, 'v'), kVCacheRange / kCodes));
  }

  std::vector<SynthPiece> take() {
    std::stable_sort(pieces_.begin(), pieces_.end(), [](const SynthPiece& a, const SynthPiece& b) {
      return alignment_rank(a.spec) < alignment_rank(b.spec);
    });
    return std::move(pieces_);
  }

 private:
  void add_coded(model::TensorRef t, const std::string& name, const CodedLayout& layout) {
    const Shape shape = model::shape_of(config_, t);
    const bool table = t.kind == K::kTokenEmbedding || t.kind == K::kPleTable;
    CodedParts parts = coded_parts(kind_, name, shape, layout, table);
    const model::RandomCodes random(config_, t, layout.codes, options_.seed);
    if (parts.shape) {
      pieces_.push_back(
          literal<int64_t>(parts.shape->name, DType::kI64, parts.shape->shape, shape));
    }
    if (!parts.input_scale.empty()) add_activation_scales(t, parts);
    const int64_t bytes = *byte_count(parts.codes.dtype, parts.codes.shape);
    const int64_t n = *element_count(parts.scales.shape);
    const DType type = layout.scales;
    pieces_.push_back(
        {std::move(parts.codes), [=](const SynthSink& sink) { make_codes(random, bytes, sink); }});
    pieces_.push_back({std::move(parts.scales),
                       [=](const SynthSink& sink) { make_scales(random, type, n, sink); }});
  }

  // mobile-ct leaves out those that are 0.
  void add_activation_scales(model::TensorRef t, const CodedParts& parts) {
    const bool zero = ranges_of(t.kind).input == 0;
    if (zero && kind_ == CodedKind::kMobileCt) return;
    pieces_.push_back(scalar(parts.input_scale, input_scale(t, options_.seed)));
    pieces_.push_back(scalar(parts.output_scale, output_scale(t, options_.seed)));
  }

  const SynthOptions& options_;
  const model::Config& config_;
  const CodedKind kind_;
  std::vector<SynthPiece> pieces_;
};

// Tensors of the model's table that the kind has: the mobile ones keep K and V, but not the norm of
// K, of layers that share them.
std::vector<model::TensorRef> refs_of(const model::Config& config, CodedKind kind) {
  std::vector<model::TensorRef> refs = model::required_tensors(config);
  if (!is_mobile(kind)) return refs;
  for (int64_t i = config.n_owners(); i < config.n_layers; ++i) {
    refs.push_back({K::kK, i});
    refs.push_back({K::kV, i});
  }
  return refs;
}

}  // namespace

model::Config coded_synth_config(model::Config config, CodedKind kind) {
  check_architecture(kind, config);
  config.tied_embeddings = !is_mobile(kind);
  return config;
}

std::vector<SynthPiece> coded_pieces(const SynthOptions& options, const model::Config& config,
                                     CodedKind kind) {
  Gatherer gatherer(options, config, kind);
  for (const model::TensorRef t : refs_of(config, kind)) gatherer.add(t);
  if (kind == CodedKind::kMobileTransformers) {
    for (int64_t i = 0; i < config.n_layers; ++i) gatherer.add_cache_scales(i);
  }
  return gatherer.take();
}

Json coded_config_json(const model::Config& config, CodedKind kind) {
  std::vector<CodedModule> modules;
  for (const model::TensorRef t : refs_of(config, kind)) {
    const auto layout = coded_layout(kind, config, t);
    if (!layout) continue;
    const bool table = t.kind == K::kTokenEmbedding || t.kind == K::kPleTable;
    const CodedParts parts =
        coded_parts(kind, model::name_of(t, kNaming), model::shape_of(config, t), *layout, table);
    const bool rounds = !parts.input_scale.empty() && ranges_of(t.kind).input > 0;
    modules.push_back({parts.module, *layout, rounds, rounds});
  }
  Json text = model::config_to_hf(config);
  text.erase("architectures");
  Json j;
  // The mobile files for transformers have no such key.
  if (kind != CodedKind::kMobileTransformers) {
    j["architectures"] = {"Gemma4ForConditionalGeneration"};
  }
  j["audio_config"] = nullptr;
  j["dtype"] = "bfloat16";
  j["eos_token_id"] = {1, 106};
  j["model_type"] = "gemma4";
  j["quantization_config"] =
      quantization_config(kind, config, kNaming, modules,
                          is_mobile(kind) ? std::vector<std::string>{"per_layer_model_projection"}
                                          : std::vector<std::string>{});
  j["text_config"] = std::move(text);
  j["tie_word_embeddings"] = config.tied_embeddings;
  j["vision_config"] = nullptr;
  return j;
}

}  // namespace carat::convert
