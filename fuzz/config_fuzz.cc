// Any text as a Hugging Face config.json: it is refused, or it describes a network whose every
// layer and tensor can be asked for. The same for drafters and towers.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "model/config.h"
#include "model/drafter.h"
#include "model/tensors.h"
#include "model/towers.h"

namespace {

void read_text_model(const carat::Json& json) {
  const carat::model::Config config = carat::model::config_from_hf(json);
  config.validate();
  CHECK(carat::model::parameter_count(config) > 0);
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const carat::model::LayerConfig layer = config.layer(i);
    CHECK(layer.kv_layer >= 0 && layer.kv_layer <= i);
    CHECK(layer.head_dim > 0 && layer.n_kv_heads > 0 && layer.ffn_dim > 0);
  }
}

void read_drafter(const carat::Json& json) {
  const carat::model::DrafterConfig config = carat::model::drafter_from_hf(json);
  CHECK(carat::model::drafter_parameter_count(config) > 0);
}

void read_towers(const carat::Json& json) {
  const carat::model::TowersConfig config = carat::model::towers_from_hf(json);
  for (const carat::model::TowerTensor& t : tower_tensors(config)) {
    CHECK(carat::element_count(tower_gguf_shape(config, t)).has_value());
    CHECK(!tower_hf_name(t).empty());
  }
}

template <class Read>
void attempt(Read read, const carat::Json& json) {
  try {
    read(json);
  } catch (const carat::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const carat::Json json = carat::parse_json(text, {.max_depth = 32, .max_bytes = 1 << 16});
    attempt(read_text_model, json);
    if (carat::model::is_drafter(json)) attempt(read_drafter, json);
    if (json.is_object() && carat::model::has_towers(json)) attempt(read_towers, json);
  } catch (const carat::Error&) {
  }
  return 0;
}
