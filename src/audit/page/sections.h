// Puts candidates that were measured alike together, and gives models short names.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "audit/page/document.h"

namespace carat::audit::page {

// A comparison before it has a place.
struct Measured {
  ModelText reference;
  Row row;
};

// Sections in the order in which their first candidate comes; rows closest first, none twice.
[[nodiscard]] std::vector<Section> make_sections(std::vector<Measured> measured,
                                                 std::span<const Run> runs);

// The name of a tensor without its layer, as GGUF and Hugging Face write it: "attn_q" of
// "blk.3.attn_q.weight".
[[nodiscard]] std::string tensor_kind(std::string_view name, int64_t layer);

}  // namespace carat::audit::page
