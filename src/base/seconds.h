// Time spans in seconds.
#pragma once

#include <chrono>

namespace carat {

[[nodiscard]] inline double in_seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}
[[nodiscard]] inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return in_seconds(std::chrono::steady_clock::now() - begin);
}

}  // namespace carat
