// Plans of Hugging Face directories: bfloat16, or one of the kinds of codes.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "convert/plan.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

using How = Item::How;
using K = model::TensorKind;
using model::StoredTensor;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

// compressed-tensors of mobile models leave these matrices of the audio tower dense, as published.
constexpr const char* kDenseInCt[] = {".ffw_layer_1", ".lconv1d.linear_start", ".self_attn.post"};

bool is_dense_in_ct(std::string_view module) {
  if (module.find("audio_tower.") == std::string_view::npos) return false;
  if (module.ends_with(".linear")) module.remove_suffix(7);
  for (const char* name : kDenseInCt) {
    if (module.ends_with(name)) return true;
  }
  return false;
}

class HfPlanner {
 public:
  HfPlanner(const PlanSource& source, const ConvertOptions& options)
      : source_(source),
        options_(options),
        kind_(coded_kind(options.format)),
        tensors_(*source.model->source) {
    plan_.config = source.model->config();
    if (kind_) check_architecture(*kind_, plan_.config);
    if (kind_ && is_mobile(*kind_)) plan_.config.tied_embeddings = false;
    plan_.naming = source.hf_config ? source.stored->naming() : model::Naming::kHf;
    const auto table = source.stored->find(model::TensorRef{K::kTokenEmbedding, -1});
    CHECK(table.has_value());  // load_model bound it
    from_mobile_ = table->is_coded();
  }

  Plan make() {
    for (const model::TensorRef ref : model::required_tensors(plan_.config)) add(ref);
    if (kind_ && is_mobile(*kind_)) add_mobile_extras();
    if (source_.hf_config) add_other_parts();
    name_kept_modules();
    std::stable_sort(plan_.items.begin(), plan_.items.end(), [](const Item& a, const Item& b) {
      return alignment_rank({a.name, a.to, a.shape}) < alignment_rank({b.name, b.to, b.shape});
    });
    return std::move(plan_);
  }

 private:
  bool is_kind(CodedKind kind) const { return kind_ == kind; }

  void add(model::TensorRef ref) {
    auto stored = source_.stored->find(ref);
    // A tied model's output matrix is its embedding.
    if (!stored) stored = source_.stored->find(model::TensorRef{K::kTokenEmbedding, -1});
    CHECK(stored.has_value());
    const std::string name = model::name_of(ref, plan_.naming);
    const Shape shape = model::shape_of(plan_.config, ref);
    const auto layout = kind_ ? coded_layout(*kind_, plan_.config, ref) : std::nullopt;
    if (layout) {
      const bool table = ref.kind == K::kTokenEmbedding || ref.kind == K::kPleTable;
      return add_coded(ref, *stored, name, shape, *layout, table);
    }
    add_float(ref, *stored, name, shape);
  }

  Item item_of(model::TensorRef ref, const StoredTensor& stored) const {
    Item item;
    item.ref = ref;
    item.source = source_tensor(tensors_, stored);
    item.is_matrix =
        ref.kind != K::kCount && model::row_of(ref.kind).cls != model::TensorClass::kKeep;
    return item;
  }

  void add_float(model::TensorRef ref, const StoredTensor& stored, const std::string& name,
                 const Shape& shape) {
    Item item = item_of(ref, stored);
    item.name = name;
    item.shape = shape;
    // Beside codes a directory's floats stay what they are.
    const bool as_is = kind_ && source_.hf_config && is_float(item.source.dtype);
    item.to = as_is ? item.source.dtype : DType::kBF16;
    plan_.items.push_back(std::move(item));
  }

  void add_coded(model::TensorRef ref, const StoredTensor& stored, const std::string& name,
                 const Shape& shape, const CodedLayout& layout, bool table) {
    const CodedParts parts = coded_parts(*kind_, name, shape, layout, table);
    Item item = item_of(ref, stored);
    item.how = How::kCodes;
    item.layout = layout;
    item.module = parts.module;
    const auto push = [&](How how, const io::TensorSpec& spec) {
      item.how = how;
      item.name = spec.name;
      item.to = spec.dtype;
      item.shape = spec.shape;
      plan_.items.push_back(item);
      item.is_matrix = false;  // counted once
    };
    push(How::kCodes, parts.codes);
    push(How::kScales, parts.scales);
    if (parts.shape) add_literal(item.source, *parts.shape, bytes_of(shape));
    const bool rounds = !parts.input_scale.empty();
    if (rounds) {
      // The embedding has none, and nor has the output matrix that is made of it.
      add_scalar(item.source, parts.input_scale, stored.input_scale);
      add_scalar(item.source, parts.output_scale, stored.output_scale);
    }
    plan_.modules.push_back({parts.module, layout, rounds && stored.input_scale > 0,
                             rounds && stored.output_scale > 0});
  }

  void add_literal(const SourceTensor& about, const io::TensorSpec& spec,
                   std::vector<std::byte> bytes) {
    Item item;
    item.how = How::kLiteral;
    item.source = about;
    item.name = spec.name;
    item.to = spec.dtype;
    item.shape = spec.shape;
    item.literal = std::move(bytes);
    plan_.items.push_back(std::move(item));
  }

  // compressed-tensors has only those that are not 0.
  void add_scalar(const SourceTensor& about, const std::string& name, float value) {
    if (value == 0 && is_kind(CodedKind::kMobileCt)) return;
    add_literal(about, {name, DType::kF32, {}}, bytes_of(std::vector<float>{value}));
  }

  // K and V of layers that share them, where the source has them, and the scales of the cache.
  void add_mobile_extras() {
    const model::Config& c = plan_.config;
    for (int64_t i = c.n_owners(); i < c.n_layers && from_mobile_; ++i) {
      for (const K kind : {K::kK, K::kV}) {
        if (source_.stored->find(model::TensorRef{kind, i})) add({kind, i});
      }
    }
    if (!is_kind(CodedKind::kMobileTransformers)) return;
    for (int64_t i = 0; i < c.n_layers; ++i) {
      const model::KvScales scales = source_.stored->kv_scales(i);
      const auto about = source_.stored->find(model::TensorRef{K::kQ, i});
      const SourceTensor q = source_tensor(tensors_, *about);
      add_scalar(q, cache_scale_name(plan_.naming, i, 'k'), scales.k);
      add_scalar(q, cache_scale_name(plan_.naming, i, 'v'), scales.v);
    }
  }

  // Towers and projections of other media. Codes follow the target's kind; the rest is copied.
  void add_other_parts() {
    std::vector<std::string> taken;  // beginnings of parts of coded modules
    for (const io::TensorEntry& entry : tensors_.entries()) {
      const model::TensorRole role = source_.stored->role(entry.name);
      if (role.ref.kind != K::kCount || role.need != model::TensorRole::Need::kSkipped) continue;
      std::string name = entry.name;
      if (name.ends_with(".weight_packed")) name.resize(name.size() - 7);
      if (is_part_of_codes(name)) continue;
      const auto stored = name.ends_with(".weight") ? source_.stored->find(name) : std::nullopt;
      if (stored && stored->is_coded()) {
        add_coded_part(name, *stored);
      } else {
        add_copy(entry);
      }
    }
  }

  // Scales and shapes are written with their codes.
  bool is_part_of_codes(const std::string& name) const {
    for (const char* end : {".weight_scale", ".weight_shape", ".input_activation_scale",
                            ".output_activation_scale", ".input_scale", ".output_scale"}) {
      if (!name.ends_with(end)) continue;
      const std::string module = name.substr(0, name.size() - std::string_view(end).size());
      const auto stored = source_.stored->find(module + ".weight");
      if (stored && stored->is_coded()) return true;
    }
    return false;
  }

  void add_coded_part(const std::string& name, const StoredTensor& stored) {
    const std::string module = name.substr(0, name.size() - 7);
    const bool dense = is_kind(CodedKind::kMobileCt) && is_dense_in_ct(module);
    if (!kind_ || !is_mobile(*kind_) || dense) {
      return add_float({K::kCount, -1}, stored, name, stored.shape);
    }
    const CodedLayout layout{stored.dtype, stored.scale_columns,
                             is_kind(CodedKind::kMobileCt) ? DType::kBF16 : DType::kF32};
    add_coded({K::kCount, -1}, stored, name, stored.shape, layout, false);
    has_coded_towers_ = true;
  }

  void add_copy(const io::TensorEntry& entry) {
    Item item;
    item.source = source_tensor(tensors_, entry);
    item.name = entry.name;
    item.to = entry.dtype;
    item.shape = entry.shape;
    plan_.items.push_back(std::move(item));
    const bool vision = entry.name.find("vision") != std::string::npos;
    (vision ? has_vision_ : has_audio_) = true;
  }

  void name_kept_modules() {
    if (!kind_) return;
    std::vector<std::string>& kept = plan_.kept;
    const auto add_all = [&](std::initializer_list<const char*> names) {
      kept.insert(kept.end(), names.begin(), names.end());
    };
    if (is_mobile(*kind_)) {
      if (has_coded_towers_) {
        add_all({"model.vision_tower.patch_embedder", "model.audio_tower.subsample_conv_projection",
                 "model.audio_tower.output_proj", "relative_k_proj"});
      } else if (has_vision_ || has_audio_) {
        add_all({"model.vision_tower", "model.audio_tower"});
      }
      if (has_vision_ || has_audio_) add_all({"model.embed_audio", "model.embed_vision"});
      return add_all({"per_layer_model_projection"});
    }
    if (has_vision_)
      add_all({"re:.*vision_tower.*", "re:.*vision_embedder.*", "re:.*embed_vision.*"});
    if (has_audio_) add_all({"re:.*audio_tower.*", "re:.*embed_audio.*"});
    if (plan_.config.has_experts()) add_all({"re:.*router.*"});
  }

  const PlanSource& source_;
  const ConvertOptions& options_;
  const std::optional<CodedKind> kind_;
  const io::TensorSource& tensors_;
  Plan plan_;
  bool from_mobile_ = false, has_vision_ = false, has_audio_ = false, has_coded_towers_ = false;
};

// Keys in ascending order, as the converter of the published files writes them.
Json sorted(const Json& j) {
  if (!j.is_object()) return j;
  std::vector<std::string> keys;
  for (const auto& [key, value] : j.items()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  Json out = Json::object();
  for (const std::string& key : keys) out[key] = sorted(j[key]);
  return out;
}

}  // namespace

Plan make_hf_plan(const PlanSource& source, const ConvertOptions& options) {
  return HfPlanner(source, options).make();
}

Json target_config(const PlanSource& source, const Plan& plan, const ConvertOptions& options) {
  const auto kind = coded_kind(options.format);
  Json j = source.hf_config ? *source.hf_config : model::config_to_hf(plan.config);
  j.erase("quantization_config");
  const bool tied = plan.config.tied_embeddings;
  if (Json* text = j.contains("text_config") ? &j["text_config"] : nullptr;
      text != nullptr && text->is_object()) {
    text->erase("quantization_config");
    (*text)["tie_word_embeddings"] = tied;
    (*text)["dtype"] = "bfloat16";
  }
  j["tie_word_embeddings"] = tied;
  j["dtype"] = "bfloat16";
  j.erase("torch_dtype");  // the older name of the same
  if (!kind) return j;
  j["quantization_config"] =
      quantization_config(*kind, plan.config, plan.naming, plan.modules, plan.kept);
  if (!j.contains("architectures") && kind != CodedKind::kMobileTransformers) {
    j["architectures"] = {"Gemma4ForConditionalGeneration"};
  }
  return kind == CodedKind::kMobileCt ? sorted(j) : j;
}

}  // namespace carat::convert
