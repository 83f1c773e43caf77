// Which build of carat this is. Defined in a file that the build generates (cmake/version.cmake).
#pragma once

#include <string_view>

namespace carat::app {

// The release, as in CMakeLists.txt: "0.1.0".
[[nodiscard]] std::string_view version();

// The commit the program was built from: twelve hexadecimal digits, with "-modified" when tracked
// files differed from it; "unknown" when the sources came without history.
[[nodiscard]] std::string_view commit();

}  // namespace carat::app
