// Checks of names that come from files, and how such names appear in messages.
#pragma once

#include <string>
#include <string_view>

namespace carat::io {

// Why `name` cannot be the name of a tensor or a key, or nullptr if it can: it must not be empty
// and must be UTF-8 without control characters.
[[nodiscard]] const char* name_fault(std::string_view name) noexcept;

// "text" in quotes for a message: at most 80 bytes of it, other than printable ASCII as \xNN.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace carat::io
