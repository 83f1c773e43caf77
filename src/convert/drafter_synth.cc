// Random drafters of true shape.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/half.h"
#include "base/rng.h"
#include "convert/drafter.h"
#include "convert/drafter_fields.h"
#include "convert/parts.h"
#include "convert/synth.h"
#include "convert/target.h"
#include "quant/blocks.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::DrafterConfig;
using model::DrafterTensor;

constexpr int64_t kWindow = int64_t{1} << 20;  // elements made at a time
constexpr float kBranch = 0.3f;                // weight of a normed branch added to the residual

// Whole rows of nearly normal numbers; norms near one.
void fill(const DrafterTensor& t, const Shape& shape, Rng& rng, std::vector<float>& out) {
  const std::string_view name = t.row->hf;
  const bool post = name.find("post_attention") != std::string_view::npos ||
                    name.find("post_feedforward") != std::string_view::npos;
  float mean = 0, deviation = 1 / std::sqrt(static_cast<float>(shape.back()));
  if (t.row->cls == model::TensorClass::kKeep) {
    mean = post ? kBranch : 1.0f;
    deviation = 0.1f * mean;
    if (name.find("q_norm") != std::string_view::npos) {
      mean = 1 / std::sqrt(static_cast<float>(shape.back()));
      deviation = 0.1f * mean;
    }
  }
  for (float& v : out) {
    const double x = 2 * (rng.uniform() + rng.uniform() + rng.uniform() - 1.5);
    v = to_float(to_bf16(mean + deviation * static_cast<float>(x)));
  }
}

// Every token once, in a random order.
std::vector<std::byte> random_ordering(int64_t n, Rng& rng) {
  std::vector<int64_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[rng.below(i)]);
  std::vector<std::byte> bytes(ids.size() * 8);
  std::memcpy(bytes.data(), ids.data(), bytes.size());
  return bytes;
}

DType type_of(const DrafterTensor& t, const DrafterSynthOptions& options) {
  if (t.row->integers) return DType::kI64;
  if (!options.gguf) return DType::kBF16;
  if (t.row->cls == model::TensorClass::kKeep) return DType::kF32;
  return options.lattice ? DType::kQ4_0 : DType::kBF16;
}

void write_tensor(const DrafterTensor& t, const io::TensorSpec& spec,
                  const DrafterSynthOptions& options, Rng& rng, io::TensorWriter& writer) {
  writer.begin(spec.name);
  if (t.row->integers) return writer.append(random_ordering(spec.shape[0], rng));
  const bool on_lattice = options.lattice && t.row->cls != model::TensorClass::kKeep &&
                          spec.shape.back() % quant::kBlock == 0;
  const int64_t total = *element_count(spec.shape);
  std::vector<float> values;
  std::vector<std::byte> bytes;
  for (int64_t at = 0; at < total; at += kWindow) {
    const int64_t n = std::min(kWindow, total - at);
    values.resize(static_cast<size_t>(n));
    fill(t, spec.shape, rng, values);
    if (on_lattice) {
      bytes.resize(static_cast<size_t>(row_bytes(DType::kQ4_0, n)));
      quant::encode_row(DType::kQ4_0, values.data(), bytes.data(), n);
      quant::decode_row(DType::kQ4_0, bytes.data(), values.data(), n);
    }
    if (!on_lattice || spec.dtype != DType::kQ4_0) {
      bytes.resize(static_cast<size_t>(row_bytes(spec.dtype, n)));
      quant::encode_row(spec.dtype, values.data(), bytes.data(), n);
    }
    writer.append(bytes);
  }
}

}  // namespace

ConvertReport write_synthetic_drafter(const DrafterSynthOptions& options) {
  const DrafterConfig config = model::drafter_of_size(options.size);
  std::vector<DrafterTensor> tensors;
  for (const DrafterTensor& t : drafter_tensors(config)) {
    if (!options.gguf || !t.row->centroids) tensors.push_back(t);
  }
  std::stable_partition(tensors.begin(), tensors.end(),
                        [](const DrafterTensor& t) { return t.row->integers; });
  ConvertReport report;
  std::vector<io::TensorSpec> specs;
  for (const DrafterTensor& t : tensors) {
    specs.push_back({options.gguf ? drafter_gguf_name(t) : drafter_hf_name(t), type_of(t, options),
                     drafter_shape(config, t)});
    TensorReport tensor;
    tensor.name = specs.back().name;
    tensor.to = specs.back().dtype;
    tensor.shape = specs.back().shape;
    tensor.weights = *element_count(tensor.shape);
    tensor.bytes = *byte_count(tensor.to, tensor.shape);
    add_tensor(report, std::move(tensor), 0);
  }
  const text::Vocab vocab = synthetic_vocab(static_cast<int32_t>(config.layers.vocab_size));
  TargetParts parts;
  parts.path = options.target;
  parts.is_folder = !options.gguf;
  parts.specs = specs;
  if (options.gguf) {
    parts.fields = drafter_fields(config, &vocab, "random " + options.size + " drafter", "",
                                  options.lattice ? 2 : 32);
    parts.rope_freqs = model::rope_freqs(config.layers);
  } else {
    parts.texts = hf_texts(model::drafter_to_hf(config), &vocab, {});
  }
  Target target(std::move(parts), false);
  Rng rng(options.seed);
  for (size_t i = 0; i < specs.size(); ++i) {
    write_tensor(tensors[i], specs[i], options, rng, target.tensors());
  }
  target.finish();
  return report;
}

}  // namespace carat::convert
