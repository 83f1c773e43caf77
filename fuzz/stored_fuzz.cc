// A config and a list of tensors, as a checkpoint of any kind: refused with an Error, or every
// parameter can be found and bound. The first line is config.json; the rest is a JSON object
// {"name": ["DTYPE", [shape]], ...}. All bytes of tensors are zero.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "model/load.h"
#include "model/stored.h"
#include "model/testing/memory_source.h"

namespace {

using carat::Json;

constexpr int64_t kMaxBytes = int64_t{1} << 23;
constexpr carat::JsonLimits kLimits{.max_depth = 16, .max_bytes = 1 << 18};

// Null if the list makes no sense as a file: readers of containers refuse such ones.
std::unique_ptr<carat::model::testing::MemorySource> source_from(const Json& list) {
  auto source = std::make_unique<carat::model::testing::MemorySource>();
  int64_t total = 0;
  for (const auto& [name, tensor] : list.items()) {
    if (!tensor.is_array() || tensor.size() != 2 || !tensor[0].is_string()) return nullptr;
    const auto dtype = carat::dtype_from_safetensors(tensor[0].get<std::string>());
    if (!dtype || !tensor[1].is_array() || tensor[1].size() > 4) return nullptr;
    carat::Shape shape;
    for (const Json& n : tensor[1]) {
      if (!n.is_number_integer() || n.get<int64_t>() < 1) return nullptr;
      shape.push_back(n.get<int64_t>());
    }
    const auto bytes = carat::byte_count(*dtype, shape);
    if (!bytes || *bytes > kMaxBytes - total) return nullptr;
    total += *bytes;
    source->add(name, *dtype, std::move(shape));
  }
  source->finish();
  return source;
}

void read_all(carat::io::Checkpoint checkpoint) {
  const carat::model::Config config = carat::model::config_of(checkpoint);
  if (config.n_layers > 64) return;  // a million is legal, and slow
  const carat::model::StoredTensors stored(checkpoint, config);
  for (const carat::io::TensorEntry& e : checkpoint.tensors->entries()) (void)stored.role(e.name);
  for (const carat::model::TensorRef ref : carat::model::required_tensors(config)) {
    const auto found = stored.find(ref);
    if (!found || !found->is_coded()) continue;
    CHECK(found->values != nullptr && found->scale_columns > 0);
    CHECK(found->input_scale >= 0 && found->output_scale >= 0);
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const carat::model::KvScales kv = stored.kv_scales(i);
    CHECK(kv.k >= 0 && kv.v >= 0);
  }
  std::shared_ptr<const carat::io::TensorSource> source = std::move(checkpoint.tensors);
  std::vector<std::string> notes;
  (void)carat::model::bind_weights(config, stored, source, &notes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos) return 0;
  try {
    carat::io::Checkpoint checkpoint;
    checkpoint.kind = carat::io::CheckpointKind::kHfDirectory;
    checkpoint.path = "fuzz";
    checkpoint.config = carat::parse_json(text.substr(0, line), kLimits);
    const Json list = carat::parse_json(text.substr(line + 1), kLimits);
    if (!list.is_object()) return 0;
    checkpoint.tensors = source_from(list);
    if (checkpoint.tensors) read_all(std::move(checkpoint));
  } catch (const carat::Error&) {
  }
  return 0;
}
