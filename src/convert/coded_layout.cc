#include "convert/coded_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

using model::TensorClass;
using K = model::TensorKind;

// The whole E family has per-layer embeddings; E2B alone has wider layers after the owners of keys,
// and only those are in 2 bits.
int mobile_bits(const model::Config& c, model::TensorRef t) {
  switch (t.kind) {
    case K::kTokenEmbedding:
    case K::kLmHead:
      return 2;
    case K::kPleTable:
      return c.double_wide_ffn ? 4 : 2;
    case K::kGate:
    case K::kUp:
    case K::kDown:
      return c.double_wide_ffn && t.layer >= c.n_owners() ? 2 : 4;
    case K::kPleGate:
    case K::kPleOut:
      return 8;
    case K::kPleProjection:
      return 0;
    default:
      return 4;
  }
}

// Codes of one word of compressed-tensors, or of one byte.
int64_t codes_in_unit(CodedKind kind, DType codes) {
  const int bits = quant::code_bits(codes);
  return kind == CodedKind::kMobileTransformers || bits == 8 ? 8 / bits : 32 / bits;
}

// A regular expression for the numbers 0 to n - 1, as the published maps write it. REQUIRES: n
// >= 1.
std::string numbers_below(int64_t n) {
  const auto digits = [](int64_t end) {
    if (end == 10) return std::string("\\d");
    return end == 1 ? std::string("0") : fmt::format("[0-{}]", end - 1);
  };
  if (n <= 10) return digits(n);
  std::string all = "(\\d";
  for (int64_t tens = 1; tens * 10 < n; ++tens) {
    all += fmt::format("|{}{}", tens, digits(std::min<int64_t>(10, n - tens * 10)));
  }
  return all + ")";
}

// In the order of the published maps: the first pattern that matches counts.
Json mobile_bit_map(const model::Config& c, model::Naming naming) {
  const std::string model =
      naming == model::Naming::kHf ? std::string("model\\.") : std::string("language_model\\.");
  const std::string layer = model + "layers\\.\\d+\\.";
  Json map;
  const auto add = [&](const std::string& pattern, int bits) {
    map[pattern] = {{"num_bits", bits}};
  };
  const auto bits = [&](K kind, int64_t i = -1) { return mobile_bits(c, {kind, i}); };
  add("^lm_head$", bits(K::kLmHead));
  add("audio_tower(?!.*lconv1d\\.linear_start)", 2);
  add("audio_tower\\.layers\\.\\d+\\.lconv1d\\.linear_start\\.", 4);
  add(model + "embed_tokens$", bits(K::kTokenEmbedding));
  add(model + "embed_tokens_per_layer$", bits(K::kPleTable));
  const int64_t owners = c.n_owners();
  if (bits(K::kDown, 0) != bits(K::kDown, c.n_layers - 1)) {
    add(model + "layers\\." + numbers_below(owners) + "\\.mlp\\.", bits(K::kDown, 0));
  }
  add(layer + "mlp\\.", bits(K::kDown, c.n_layers - 1));
  add(layer + "per_layer_input_gate$", bits(K::kPleGate, 0));
  add(layer + "per_layer_projection$", bits(K::kPleOut, 0));
  add(layer + "self_attn\\.", bits(K::kQ, 0));
  add("vision_tower", 8);
  return map;
}

Json weights_args(const CodedLayout& layout, bool group) {
  return {{"actorder", nullptr},
          {"block_structure", nullptr},
          {"dynamic", false},
          {"group_size", group ? Json(layout.scale_columns) : Json(nullptr)},
          {"num_bits", quant::code_bits(layout.codes)},
          {"observer", "memoryless_minmax"},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"strategy", group ? "group" : "channel"},
          {"symmetric", true},
          {"type", "int"},
          {"zp_dtype", nullptr}};
}

Json activation_args(bool there) {
  if (!there) return nullptr;
  return {{"dynamic", false},
          {"num_bits", 8},
          {"strategy", "tensor"},
          {"symmetric", true},
          {"type", "int"}};
}

Json compressed_tensors(const Json& groups, const char* format, const Json& ignore) {
  return {{"config_groups", groups},
          {"format", format},
          {"global_compression_ratio", nullptr},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", "0.17.1.a20260602"}};
}

Json w4a16_config(const std::vector<CodedModule>& modules, const std::vector<std::string>& kept) {
  CHECK(!modules.empty());
  Json ignore = kept;
  ignore.push_back("lm_head");
  const Json group = {{"format", "pack-quantized"},
                      {"input_activations", nullptr},
                      {"output_activations", nullptr},
                      {"targets", {"Linear"}},
                      {"weights", weights_args(modules.front().layout, true)}};
  return compressed_tensors({{"group_0", group}}, "pack-quantized", ignore);
}

// One group for each scheme that occurs, with its modules by name.
Json mobile_ct_config(const model::Config& config, const std::vector<CodedModule>& modules,
                      const std::vector<std::string>& kept) {
  struct Scheme {
    int bits;
    int64_t group;  // 0: a scale per row
    bool in, out;
    auto operator<=>(const Scheme&) const = default;
  };
  std::map<Scheme, std::vector<std::string>> groups;
  for (const CodedModule& m : modules) {
    const bool by_layer = m.name.ends_with("embed_tokens_per_layer");
    const Scheme scheme{quant::code_bits(m.layout.codes), by_layer ? config.ple_dim : 0,
                        m.input_scale, m.output_scale};
    groups[scheme].push_back(m.name == "lm_head" ? "re:.*lm_head$" : m.name);
  }
  Json all;
  for (auto& [scheme, targets] : groups) {
    std::sort(targets.begin(), targets.end());
    const CodedLayout layout{quant::coded_dtype(scheme.bits), scheme.group, DType::kBF16};
    Json group;
    group["format"] = scheme.bits == 8 ? "int-quantized" : "pack-quantized";
    group["input_activations"] = activation_args(scheme.in);
    group["output_activations"] = activation_args(scheme.out);
    group["targets"] = targets;
    group["weights"] = weights_args(layout, scheme.group > 0);
    all[fmt::format("group_{}", all.size())] = std::move(group);
  }
  return compressed_tensors(all, "pack-quantized", kept);
}

}  // namespace

void check_architecture(CodedKind kind, const model::Config& config) {
  if (!is_mobile(kind) || (config.has_ple() && !config.has_experts())) return;
  throw Error({"the mobile kinds have no form for this architecture", "", "",
               "a model with per-layer embeddings: E2B or E4B",
               config.has_experts() ? "a mixture of experts" : "a model without them",
               "w4a16-ct and GGUF hold every size"});
}

std::optional<CodedLayout> coded_layout(CodedKind kind, const model::Config& config,
                                        model::TensorRef ref) {
  const TensorClass cls = model::row_of(ref.kind).cls;
  if (cls == TensorClass::kKeep) return std::nullopt;
  if (kind == CodedKind::kW4A16) {
    if (cls == TensorClass::kEmbedding || cls == TensorClass::kPleTable) return std::nullopt;
    return CodedLayout{DType::kC4, 32, DType::kBF16};
  }
  const int bits = mobile_bits(config, ref);
  if (bits == 0) return std::nullopt;
  const int64_t columns = model::shape_of(config, ref).back();
  return CodedLayout{quant::coded_dtype(bits), ref.kind == K::kPleTable ? config.ple_dim : columns,
                     kind == CodedKind::kMobileCt ? DType::kBF16 : DType::kF32};
}

CodedParts coded_parts(CodedKind kind, const std::string& name, const Shape& shape,
                       const CodedLayout& layout, bool is_table) {
  CHECK(shape.size() >= 2);
  const int64_t unit = codes_in_unit(kind, layout.codes);
  if (shape.back() % unit != 0 || shape.back() % layout.scale_columns != 0) {
    throw Error({"rows of this tensor cannot be packed", "", "tensor " + name,
                 fmt::format("a multiple of {} columns", std::max(unit, layout.scale_columns)),
                 to_string(shape), ""});
  }
  const bool module = name.ends_with(".weight");
  CodedParts p;
  p.module = module ? name.substr(0, name.size() - 7) : name;
  const bool eight = layout.codes == DType::kC8;
  const bool table = kind == CodedKind::kMobileTransformers && is_table;
  // Experts are parameters, not modules: "experts.down_proj_packed".
  const std::string prefix = p.module + (!module ? "_" : table ? ".embedding_" : ".weight_");
  Shape packed = shape, scales = shape;
  packed.back() /= unit;
  scales.back() /= layout.scale_columns;
  if (kind == CodedKind::kMobileTransformers) {
    const std::string weight = table ? prefix + "quantized" : name;
    p.codes = {weight, eight ? DType::kI8 : DType::kU8, packed};
  } else {
    p.codes = eight ? io::TensorSpec{name, DType::kI8, packed}
                    : io::TensorSpec{prefix + "packed", DType::kI32, packed};
    if (!eight) p.shape = {prefix + "shape", DType::kI64, {static_cast<int64_t>(shape.size())}};
  }
  p.scales = {prefix + "scale", layout.scales, scales};
  if (is_mobile(kind) && !is_table) {
    const char* part = kind == CodedKind::kMobileTransformers ? "_activation_scale" : "_scale";
    p.input_scale = p.module + ".input" + part;
    p.output_scale = p.module + ".output" + part;
  }
  return p;
}

std::string cache_scale_name(model::Naming naming, int64_t layer, char k_or_v) {
  std::string name = model::name_of({K::kQ, layer}, naming);
  name.resize(name.size() - std::string_view("q_proj.weight").size());
  return name + k_or_v + "_cache_scale";
}

Json quantization_config(CodedKind kind, const model::Config& config, model::Naming naming,
                         const std::vector<CodedModule>& modules,
                         const std::vector<std::string>& kept) {
  switch (kind) {
    case CodedKind::kW4A16:
      return w4a16_config(modules, kept);
    case CodedKind::kMobileCt:
      return mobile_ct_config(config, modules, kept);
    case CodedKind::kMobileTransformers:
      break;
  }
  return {{"modules_to_not_convert", kept},
          {"module_quant_configs", mobile_bit_map(config, naming)},
          {"num_bits", 4},
          {"quant_method", "gemma"},
          {"quantize_embeddings", true}};
}

int alignment_rank(const io::TensorSpec& spec) {
  const int64_t bytes = *byte_count(spec.dtype, spec.shape);
  const int element = info(spec.dtype).block_bytes;
  if (element == 8) return 0;
  if (bytes % 8 == 0) return 1;
  if (element == 4) return 2;
  return bytes % 4 == 0 ? 3 : element == 2 ? 4 : 5;
}

}  // namespace carat::convert
