// Random checkpoints of what stands beside a text model: "E2B-assistant", a drafter, and
// "E2B-mmproj", the towers for images and sound.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "convert/synth.h"

namespace carat::convert {

[[nodiscard]] bool is_part_size(std::string_view size);
std::vector<std::string> part_size_names();

// Drafters: "q4_0" (as such in GGUF, on its lattice in a directory) or "bf16". Towers: in bfloat16,
// whatever of the two is asked for. Throws Error.
SynthReport write_synthetic_part(const SynthOptions& options);

}  // namespace carat::convert
