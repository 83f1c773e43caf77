// The model inside the program: models/nano's Q4_0 GGUF, put there by the assembler at build time.
#pragma once

#include <cstddef>
#include <span>

namespace carat::app {

// The GGUF's bytes, for the life of the program; empty if the file did not exist when the program
// was built.
[[nodiscard]] std::span<const std::byte> nano_model();

}  // namespace carat::app
