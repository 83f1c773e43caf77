// What the user pipes or types in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace carat::app {

// Everything on standard input. Throws Error beyond `limit` bytes or on a read error, Interrupted
// on Ctrl-C.
[[nodiscard]] std::string read_standard_input(int64_t limit = int64_t{256} << 20);

// One line without its newline; nothing at the end of the input. Throws Interrupted on Ctrl-C.
[[nodiscard]] std::optional<std::string> read_line();

}  // namespace carat::app
