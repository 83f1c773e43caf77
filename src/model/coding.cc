// What config.json says of quantization: which ways of writing codes are known, and that nothing
// beside them is asked for.
#include <fmt/format.h>

#include "base/error.h"
#include "model/stored.h"

namespace carat::model {
namespace {

constexpr const char* kKey = "quantization_config";
constexpr int64_t kMaxGroup = int64_t{1} << 24;

[[noreturn]] void refuse(const std::string& key, const std::string& expected,
                         const std::string& got, const char* hint = "") {
  throw Error(
      {"carat does not read this kind of quantized checkpoint", "", key, expected, got, hint});
}

std::string text_of(const Json& j) {
  return j.is_string() ? j.get<std::string>() : to_json_text(j).substr(0, 80);
}

std::string join(const std::string& place, const std::string& key) { return place + "." + key; }

const Json* object_at(const Json& j, const char* key, const std::string& place) {
  const Json* value = find(j, key);
  if (value && !value->is_object()) refuse(join(place, key), "an object", text_of(*value));
  return value;
}

// Absent and null are as good as `expected`.
void expect_text(const Json& j, const char* key, const char* expected, const std::string& place) {
  const Json* value = find(j, key);
  if (value && text_of(*value) != expected) refuse(join(place, key), expected, text_of(*value));
}

void expect_bool(const Json& j, const char* key, bool expected, const std::string& place) {
  const Json* value = find(j, key);
  if (!value || (value->is_boolean() && value->get<bool>() == expected)) return;
  refuse(join(place, key), expected ? "true" : "false", text_of(*value));
}

void expect_nothing(const Json& j, const char* key, const std::string& place) {
  const Json* value = find(j, key);
  if (!value || (value->is_object() && value->empty())) return;
  refuse(join(place, key), "nothing", text_of(*value));
}

void check_bits(const Json& j, const std::string& place) {
  const Json* bits = find(j, "num_bits");
  const bool known = bits && bits->is_number_integer() && (*bits == 2 || *bits == 4 || *bits == 8);
  if (!known) refuse(join(place, "num_bits"), "2, 4 or 8", bits ? text_of(*bits) : "none");
}

void check_integers(const Json& j, const std::string& place) {
  expect_text(j, "type", "int", place);
  expect_bool(j, "symmetric", true, place);
  expect_bool(j, "dynamic", false, place);
}

void check_weights(const Json& j, const std::string& place) {
  check_bits(j, place);
  check_integers(j, place);
  expect_nothing(j, "actorder", place);
  expect_nothing(j, "block_structure", place);
  const std::string strategy = get_string(j, "strategy", "channel");
  if (strategy == "group") {
    (void)get_int(j, "group_size", 1, kMaxGroup);
  } else if (strategy != "channel") {
    refuse(join(place, "strategy"), "group or channel", strategy);
  }
}

void check_activations(const Json& j, const std::string& place) {
  check_integers(j, place);
  const Json* bits = find(j, "num_bits");
  if (bits && *bits != 8) refuse(join(place, "num_bits"), "8", text_of(*bits));
  expect_text(j, "strategy", "tensor", place);
  expect_nothing(j, "actorder", place);
}

bool is_packed_format(const std::string& format) {
  return format == "pack-quantized" || format == "int-quantized";
}

void check_group(const Json& group, const std::string& place) {
  if (!group.is_object()) refuse(place, "an object", text_of(group));
  const std::string format = get_string(group, "format", "pack-quantized");
  if (!is_packed_format(format)) {
    refuse(join(place, "format"), "pack-quantized or int-quantized", format);
  }
  const Json* weights = object_at(group, "weights", place);
  if (!weights) refuse(join(place, "weights"), "an object", "none");
  check_weights(*weights, join(place, "weights"));
  for (const char* key : {"input_activations", "output_activations"}) {
    if (const Json* a = object_at(group, key, place)) check_activations(*a, join(place, key));
  }
}

void check_compressed_tensors(const Json& q) {
  const std::string format = get_string(q, "format", "pack-quantized");
  if (!is_packed_format(format) && format != "mixed-precision") {
    refuse(join(kKey, "format"), "pack-quantized or int-quantized", format);
  }
  expect_text(q, "quantization_status", "compressed", kKey);
  expect_nothing(q, "kv_cache_scheme", kKey);
  expect_nothing(q, "transform_config", kKey);
  if (const Json* sparsity = object_at(q, "sparsity_config", kKey)) {
    expect_text(*sparsity, "format", "dense", join(kKey, "sparsity_config"));
  }
  const std::string place = join(kKey, "config_groups");
  const Json* groups = object_at(q, "config_groups", kKey);
  if (!groups || groups->empty()) refuse(place, "at least one group", "none");
  for (const auto& [name, group] : groups->items()) check_group(group, join(place, name));
}

void check_mobile(const Json& q) {
  if (find(q, "num_bits")) check_bits(q, kKey);
  const std::string place = join(kKey, "module_quant_configs");
  const Json* modules = object_at(q, "module_quant_configs", kKey);
  if (!modules) return;
  for (const auto& [pattern, module] : modules->items()) {
    if (!module.is_object()) refuse(join(place, pattern), "an object", text_of(module));
    check_bits(module, join(place, pattern));
  }
}

}  // namespace

Coding coding_of(const Json& config) {
  if (!config.is_object()) return Coding::kNone;
  const Json* nested = find(config, "text_config");
  const Json* q = find(config, kKey);
  if (q == nullptr && nested != nullptr && nested->is_object()) q = find(*nested, kKey);
  if (q == nullptr) return Coding::kNone;
  if (!q->is_object()) refuse(kKey, "an object", text_of(*q));
  const std::string method = get_string(*q, "quant_method", "unnamed");
  if (method == "gemma") {
    check_mobile(*q);
    return Coding::kMobile;
  }
  if (method == "compressed-tensors") {
    check_compressed_tensors(*q);
    return Coding::kCompressedTensors;
  }
  refuse(join(kKey, "quant_method"), "gemma or compressed-tensors", method,
         "open the q4_0-unquantized checkpoint or the GGUF of the same model");
}

}  // namespace carat::model
