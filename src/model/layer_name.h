// Names in the tables of towers and drafters.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace carat::model {

// "blk.N.attn_q.weight" with the layer in place of N; as it is if there is none.
inline std::string with_layer(std::string_view pattern, int64_t layer) {
  const size_t n = pattern.find(".N.");
  if (n == std::string_view::npos) return std::string(pattern);
  return fmt::format("{}.{}.{}", pattern.substr(0, n), layer, pattern.substr(n + 3));
}

}  // namespace carat::model
