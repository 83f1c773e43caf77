// Which type each tensor of a GGUF file gets, by the name that people know the mix by.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/config.h"
#include "model/tensors.h"
#include "tensor/dtype.h"

namespace carat::convert {

struct GgufRecipe {
  const char* name;  // "q4_k_m"
  DType matrix;      // linear layers
  // The V matrices and down projections of about half of the layers: those of the first and the
  // last eighth and every third between, as llama.cpp's recipes of medium size have it.
  DType favoured;
  DType table;           // token embedding and per-layer table
  DType ple_projection;  // per_layer_model_projection
  uint32_t file_type;    // general.file_type
};

// f32, f16, bf16; q4_0, which is Google's mix; q4_0_all, which has no other type; every other
// quantized type by its name, with the embedding tables as llama.cpp stores them (Q6_K, or Q8_0
// beside Q8_0) and the per-layer projection F16; and q4_k_m and q5_k_m as llama.cpp makes them.
std::span<const GgufRecipe> gguf_recipes();
// Throws Error naming the recipes that there are.
const GgufRecipe& gguf_recipe(std::string_view name);

// A mix of types, and types of single tensors in its place.
struct Recipe {
  std::string base = "q4_0_all";
  // By the names of GGUF files, in which * stands for any text; the first that fits counts.
  std::vector<std::pair<std::string, DType>> tensors;
};
// A JSON file: {"recipe": "q4_k", "tensors": {"blk.*.ffn_down.weight": "q6_k"}}. An object "about"
// may say where it comes from; it is not looked at. Throws Error.
Recipe read_recipe(const std::string& path);
// Whether the text fits a pattern of such a file.
[[nodiscard]] bool fits_pattern(std::string_view text, std::string_view pattern);

// Whether rows of the type fit the tensor's: they, or of the per-layer table, which is read a layer
// at a time, a layer's part of them, must be whole blocks.
[[nodiscard]] bool fits_rows(const model::Config& config, model::TensorRef t, DType type);

// A tensor whose rows are not whole blocks of the recipe's type gets the type with blocks of 32
// that llama.cpp takes in its place.
DType type_in(const GgufRecipe& recipe, const model::Config& config, model::TensorRef t);
// The same with the types of single tensors. Throws Error if one of those does not fit its rows.
DType type_in(const Recipe& recipe, const model::Config& config, model::TensorRef t);
// Patterns that fit no matrix of the model: most often a slip of the pen.
[[nodiscard]] std::vector<std::string> unused_patterns(const Recipe& recipe,
                                                       const model::Config& config);

}  // namespace carat::convert
