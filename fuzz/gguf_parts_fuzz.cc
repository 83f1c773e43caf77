// Any bytes as the head of a drafter's or an mmproj file: its metadata are refused with an Error,
// or describe a network whose every tensor can be asked for. Zeros stand behind the input, so that
// it can do without tensors' data.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "io/gguf_parse.h"
#include "model/drafter.h"
#include "model/testing/memory_source.h"
#include "model/towers.h"

namespace {

using namespace carat;

void read_drafter(const io::GgufMetadata& metadata, const io::TensorSource& tensors) try {
  const model::DrafterConfig config = model::drafter_from_gguf(metadata, tensors);
  config.validate();
  CHECK(model::drafter_parameter_count(config) > 0);
} catch (const Error&) {
}

void read_towers(const io::GgufMetadata& metadata, const io::TensorSource& tensors) try {
  const model::TowersConfig config = model::towers_from_gguf(metadata, tensors);
  config.validate();
  for (const model::TowerTensor& t : tower_tensors(config)) {
    CHECK(element_count(tower_gguf_shape(config, t)).has_value());
    CHECK(!tower_hf_name(t).empty());
  }
} catch (const Error&) {
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kBytes = size_t{4} << 20;
  std::vector<std::byte> bytes(std::max(size, kBytes));
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const io::GgufHead head = io::parse_gguf(bytes, "fuzz.gguf");
    model::testing::MemorySource tensors;
    for (const io::TensorEntry& e : head.entries) tensors.add(e.name, e.dtype, e.shape);
    tensors.finish();
    if (model::is_drafter(head.metadata)) {
      read_drafter(head.metadata, tensors);
    } else {
      read_towers(head.metadata, tensors);
    }
  } catch (const Error&) {
  }
  return 0;
}
