// Which parts of a calibration text a search decides on, and which tell whether it was right.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace carat::quantize {

struct SearchText {
  std::vector<std::vector<int32_t>> search, check;  // chunks; none is in both
};

// Chunks that lie evenly in the text: about `check_tokens` of them, at most two fifths of all
// chunks or two, to check, and of the others about `search_tokens`, at least two, to search. Throws
// Error if there are fewer than four chunks that are long enough to be compared.
[[nodiscard]] SearchText split_text(std::span<const std::vector<int32_t>> chunks,
                                    int64_t search_tokens, int64_t check_tokens);

}  // namespace carat::quantize
