// Any text as a Hugging Face config.json: it is refused, or it describes a network whose every
// layer and tensor can be asked for.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "model/config.h"
#include "model/tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const carat::Json json = carat::parse_json(text, {.max_depth = 32, .max_bytes = 1 << 16});
    const carat::model::Config config = carat::model::config_from_hf(json);
    config.validate();
    CHECK(carat::model::parameter_count(config) > 0);
    for (int64_t i = 0; i < config.n_layers; ++i) {
      const carat::model::LayerConfig layer = config.layer(i);
      CHECK(layer.kv_layer >= 0 && layer.kv_layer <= i);
      CHECK(layer.head_dim > 0 && layer.n_kv_heads > 0 && layer.ffn_dim > 0);
    }
  } catch (const carat::Error&) {
  }
  return 0;
}
