// Small checkpoints of codes in memory, for tests: mobile-transformers, mobile-ct and w4a16-ct,
// written from the description in docs/formats.md and by nothing that the program writes with.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "io/checkpoint.h"
#include "model/random_tensor.h"
#include "model/stored.h"
#include "model/testing/memory_source.h"
#include "quant/coded_rows.h"

namespace carat::model::testing {

enum class CodedForm { kMobile, kMobileCt, kW4A16 };
inline constexpr CodedForm kCodedForms[] = {CodedForm::kMobile, CodedForm::kMobileCt,
                                            CodedForm::kW4A16};

inline const char* name_of(CodedForm form) {
  return form == CodedForm::kMobile ? "mobile" : form == CodedForm::kMobileCt ? "ct" : "w4a16";
}

inline Config coded_config(const char* size, CodedForm form) {
  Config c = config_of_size(size);
  c.tied_embeddings = form == CodedForm::kW4A16;
  return c;
}

// 0: a float. Mobile: two kinds of feed-forward as in E2B.
inline int coded_bits(const Config& c, CodedForm form, TensorRef t) {
  const TensorClass cls = row_of(t.kind).cls;
  const bool product = cls == TensorClass::kMatrix;
  if (form == CodedForm::kW4A16) return product || cls == TensorClass::kPleProjection ? 4 : 0;
  if (cls == TensorClass::kEmbedding) return 2;
  if (cls == TensorClass::kPleTable) return 4;
  if (!product) return 0;
  if (t.kind == TensorKind::kPleGate || t.kind == TensorKind::kPleOut) return 8;
  const bool ffn =
      t.kind == TensorKind::kGate || t.kind == TensorKind::kUp || t.kind == TensorKind::kDown;
  return ffn && 2 * t.layer >= c.n_layers ? 2 : 4;
}

struct CodedSource {
  CodedSource(const char* size, CodedForm f, Naming n = Naming::kHfMultimodal)
      : form(f), naming(n), config(coded_config(size, f)) {}

  CodedForm form;
  Naming naming;
  Config config;
  bool static_scales = true;  // of activations, keys and values
  uint64_t seed = 1;

  std::unique_ptr<MemorySource> source = std::make_unique<MemorySource>();
  std::map<std::string, std::vector<float>> values;  // by unquantized name
  Json json;                                         // config.json

  // Adds all tensors; call checkpoint() afterwards.
  void fill() {
    for (const TensorRow& row : tensor_table()) {
      for (int64_t i = row.per_layer ? 0 : -1; i < (row.per_layer ? config.n_layers : 0); ++i) {
        const Presence presence = row.presence(config, i);
        const bool unused_kv = presence == Presence::kUnused && form != CodedForm::kW4A16 &&
                               (row.kind == TensorKind::kK || row.kind == TensorKind::kV);
        if (presence == Presence::kRequired || unused_kv) add({row.kind, i});
      }
    }
    if (form == CodedForm::kMobile) {
      for (int64_t i = 0; i < config.n_layers; ++i) add_cache_scales(i);
    }
    json = config_to_hf(config);
    json["quantization_config"] = quantization();
  }

  // The open checkpoint; `source` goes into it.
  io::Checkpoint checkpoint() {
    source->finish();
    io::Checkpoint c;
    c.kind = io::CheckpointKind::kHfDirectory;
    c.path = "memory";
    c.tensors = std::move(source);
    c.config = json;
    return c;
  }

  Json quantization() const {
    if (form == CodedForm::kMobile) {
      return {{"quant_method", "gemma"},
              {"num_bits", 4},
              {"quantize_embeddings", true},
              {"module_quant_configs", {{"^lm_head$", {{"num_bits", 2}}}}}};
    }
    Json groups;
    const bool group = form == CodedForm::kW4A16;
    groups["group_0"] = {{"targets", {"Linear"}},
                         {"format", "pack-quantized"},
                         {"input_activations", nullptr},
                         {"weights",
                          {{"num_bits", group ? 4 : 2},
                           {"type", "int"},
                           {"symmetric", true},
                           {"strategy", group ? "group" : "channel"},
                           {"group_size", group ? Json(32) : Json()},
                           {"dynamic", false},
                           {"actorder", nullptr}}}};
    return {{"quant_method", "compressed-tensors"}, {"format", "pack-quantized"},
            {"quantization_status", "compressed"},  {"kv_cache_scheme", nullptr},
            {"sparsity_config", Json::object()},    {"config_groups", groups}};
  }

 private:
  static bool is_table(TensorKind kind) {
    return kind == TensorKind::kTokenEmbedding || kind == TensorKind::kPleTable;
  }
  static std::vector<std::byte> bytes_of(const void* data, size_t n) {
    std::vector<std::byte> bytes(n);
    std::memcpy(bytes.data(), data, n);
    return bytes;
  }
  void add_scalar(const std::string& name, float value) { source->add_f32(name, {}, {value}); }

  void add(TensorRef t) {
    const std::string name = model::name_of(t, naming);
    const Shape shape = shape_of(config, t);
    const int bits = coded_bits(config, form, t);
    if (bits > 0) return add_coded(t, name, shape, bits);
    std::vector<std::byte> bytes(static_cast<size_t>(*byte_count(DType::kBF16, shape)));
    RandomTensor(config, t, DType::kBF16, seed).next(bytes);
    std::vector<float>& out = values[name];
    for (size_t i = 0; i < bytes.size(); i += 2) {
      uint16_t half;
      std::memcpy(&half, &bytes[i], 2);
      out.push_back(to_float(BF16{half}));
    }
    source->add(name, DType::kBF16, shape, std::move(bytes));
  }

  void add_coded(TensorRef t, const std::string& name, const Shape& shape, int bits) {
    Rng rng(seed * 1000003 + std::hash<std::string>()(name) % 1000003);
    const int64_t n = *element_count(shape), columns = shape.back();
    int64_t group = columns;
    if (form == CodedForm::kW4A16) group = 32;
    if (t.kind == TensorKind::kPleTable) group = config.ple_dim;
    const int half = 1 << (bits - 1);

    std::vector<int8_t> codes(static_cast<size_t>(n));
    for (int8_t& c : codes) {
      c = static_cast<int8_t>(static_cast<int>(rng.below(static_cast<uint64_t>(2 * half))) - half);
    }
    std::vector<float> scales(static_cast<size_t>(n / group));
    const double spread = 1.7 / half / std::sqrt(double(is_table(t.kind) ? group : columns));
    for (float& s : scales) {
      s = static_cast<float>(spread * (0.8 + 0.4 * rng.uniform()));
      if (form != CodedForm::kMobile) s = to_float(to_bf16(s));
      if (form == CodedForm::kW4A16 && rng.below(2) == 0) s = -s;
    }
    std::vector<float>& out = values[name];
    for (int64_t i = 0; i < n; ++i) {
      out.push_back(static_cast<float>(codes[size_t(i)]) * scales[size_t(i / group)]);
    }
    add_parts(t, name, shape, bits, codes, scales);
  }

  void add_parts(TensorRef t, const std::string& name, const Shape& shape, int bits,
                 const std::vector<int8_t>& codes, const std::vector<float>& scales) {
    const bool has_word = name.ends_with(".weight");
    const std::string module = has_word ? name.substr(0, name.size() - 7) : name;
    const DType type = quant::coded_dtype(bits);
    std::vector<std::byte> packed(static_cast<size_t>(row_bytes(type, int64_t(codes.size()))));
    quant::pack_codes(type, codes.data(), int64_t(codes.size()), packed.data());
    Shape scale_shape = shape;
    scale_shape.back() =
        static_cast<int64_t>(scales.size()) / (*element_count(shape) / shape.back());
    Shape stored = shape;
    if (form == CodedForm::kMobile) {
      const bool table = is_table(t.kind);
      stored.back() = stored.back() * bits / 8;
      source->add(table ? module + ".embedding_quantized" : name,
                  bits == 8 ? DType::kI8 : DType::kU8, stored, packed);
      source->add_f32(table ? module + ".embedding_scale" : name + "_scale", scale_shape, scales);
    } else {
      std::vector<std::byte> narrow;
      for (const float s : scales) {
        const uint16_t half = to_bf16(s).bits;
        const auto two = bytes_of(&half, 2);
        narrow.insert(narrow.end(), two.begin(), two.end());
      }
      if (bits == 8) {
        source->add(name, DType::kI8, stored, packed);
      } else {
        stored.back() = stored.back() * bits / 32;
        source->add(name + "_packed", DType::kI32, stored, packed);
        source->add(name + "_shape", DType::kI64, {int64_t(shape.size())},
                    bytes_of(shape.data(), 8 * shape.size()));
      }
      source->add(name + "_scale", DType::kBF16, scale_shape, narrow);
    }
    add_activation_scales(t, module);
  }

  void add_activation_scales(TensorRef t, const std::string& module) {
    if (is_table(t.kind) || form == CodedForm::kW4A16) return;
    const bool calibrated = static_scales && t.kind != TensorKind::kLmHead;
    const float in = calibrated ? 2.5f / 127 : 0, out = calibrated ? 3.0f / 127 : 0;
    if (form == CodedForm::kMobile) {
      add_scalar(module + ".input_activation_scale", in);
      add_scalar(module + ".output_activation_scale", out);
    } else if (calibrated) {
      add_scalar(module + ".input_scale", in);
      add_scalar(module + ".output_scale", out);
    }
  }

  void add_cache_scales(int64_t layer) {
    std::string name = model::name_of({TensorKind::kQ, layer}, naming);
    name.resize(name.size() - std::string_view("q_proj.weight").size());
    add_scalar(name + "k_cache_scale", static_scales ? 5.0f / 127 : 0);
    add_scalar(name + "v_cache_scale", static_scales ? 6.0f / 127 : 0);
  }
};

}  // namespace carat::model::testing
