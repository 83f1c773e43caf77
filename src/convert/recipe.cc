#include "convert/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace carat::convert {
namespace {

using D = DType;

constexpr GgufRecipe kRecipes[] = {
    {"f32", D::kF32, D::kF32, D::kF32, D::kF32, 0},
    {"f16", D::kF16, D::kF16, D::kF16, D::kF16, 1},
    {"bf16", D::kBF16, D::kBF16, D::kBF16, D::kBF16, 32},
    {"q4_0", D::kQ4_0, D::kQ4_0, D::kQ6_K, D::kF16, 2},
    {"q4_0_all", D::kQ4_0, D::kQ4_0, D::kQ4_0, D::kQ4_0, 2},
    {"q4_1", D::kQ4_1, D::kQ4_1, D::kQ6_K, D::kF16, 3},
    {"q5_0", D::kQ5_0, D::kQ5_0, D::kQ6_K, D::kF16, 8},
    {"q5_1", D::kQ5_1, D::kQ5_1, D::kQ6_K, D::kF16, 9},
    {"q8_0", D::kQ8_0, D::kQ8_0, D::kQ8_0, D::kF16, 7},
    {"iq4_nl", D::kIQ4_NL, D::kIQ4_NL, D::kQ6_K, D::kF16, 25},
    {"iq4_xs", D::kIQ4_XS, D::kIQ4_XS, D::kQ6_K, D::kF16, 30},
    {"q2_k", D::kQ2_K, D::kQ2_K, D::kQ6_K, D::kF16, 10},
    {"q3_k", D::kQ3_K, D::kQ3_K, D::kQ6_K, D::kF16, 11},
    {"q4_k", D::kQ4_K, D::kQ4_K, D::kQ6_K, D::kF16, 14},
    {"q4_k_m", D::kQ4_K, D::kQ6_K, D::kQ6_K, D::kF16, 15},
    {"q5_k", D::kQ5_K, D::kQ5_K, D::kQ6_K, D::kF16, 16},
    {"q5_k_m", D::kQ5_K, D::kQ6_K, D::kQ6_K, D::kF16, 17},
    {"q6_k", D::kQ6_K, D::kQ6_K, D::kQ6_K, D::kF16, 18},
};

bool is_favoured(int64_t i, int64_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

// V matrices are counted where a layer has one.
bool is_favoured(const model::Config& config, model::TensorRef t) {
  using K = model::TensorKind;
  if (t.kind == K::kDown || t.kind == K::kExpertsDown) return is_favoured(t.layer, config.n_layers);
  if (t.kind != K::kV) return false;
  int64_t before = 0;
  int64_t all = 0;
  for (const model::TensorRef v : model::required_tensors(config)) {
    if (v.kind != K::kV) continue;
    before += v.layer < t.layer ? 1 : 0;
    ++all;
  }
  return is_favoured(before, all);
}

DType with_small_blocks(DType type) {
  switch (type) {
    case D::kQ2_K:
    case D::kQ3_K:
    case D::kIQ4_XS:
      return D::kIQ4_NL;
    case D::kQ4_K:
      return D::kQ5_0;
    case D::kQ5_K:
      return D::kQ5_1;
    case D::kQ6_K:
      return D::kQ8_0;
    default:
      return type;
  }
}

DType wanted_type(const GgufRecipe& recipe, const model::Config& config, model::TensorRef t) {
  switch (model::row_of(t.kind).cls) {
    case model::TensorClass::kKeep:
      return D::kF32;
    case model::TensorClass::kEmbedding:
    case model::TensorClass::kPleTable:
      return recipe.table;
    case model::TensorClass::kPleProjection:
      return recipe.ple_projection;
    case model::TensorClass::kMatrix:
      return is_favoured(config, t) ? recipe.favoured : recipe.matrix;
  }
  return recipe.matrix;
}

// What must be whole blocks: rows, or of the per-layer table, which is read a layer at a time, a
// layer's part of them.
int64_t block_unit(const model::Config& config, model::TensorRef t) {
  return t.kind == model::TensorKind::kPleTable ? config.ple_dim
                                                : model::shape_of(config, t).back();
}

}  // namespace

std::span<const GgufRecipe> gguf_recipes() { return kRecipes; }

const GgufRecipe& gguf_recipe(std::string_view name) {
  std::vector<const char*> names;
  for (const GgufRecipe& r : kRecipes) {
    if (r.name == name) return r;
    names.push_back(r.name);
  }
  throw Error({"no such mix of types",
               {},
               {},
               fmt::format("one of {}", fmt::join(names, ", ")),
               std::string(name),
               {}});
}

bool fits_pattern(std::string_view text, std::string_view pattern) {
  // The last star is tried further on when what follows it does not fit.
  size_t t = 0, p = 0, star = std::string_view::npos, after_star = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after_star = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++after_star;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Recipe read_recipe(const std::string& path) try {
  const Json j = read_json_file(path, {.max_depth = 4, .max_bytes = int64_t{1} << 20});
  if (!j.is_object()) throw Error({"not a JSON object", "", "", "", "", ""});
  Recipe recipe;
  recipe.base = get_string(j, "recipe", recipe.base);
  (void)gguf_recipe(recipe.base);
  for (const auto& [key, value] : j.items()) {
    if (key == "recipe" || key == "tensors") continue;
    if (key == "about" && value.is_object()) continue;
    throw Error(
        {"a recipe has no such key", "", key, "recipe, tensors, or an object \"about\"", "", ""});
  }
  const Json* tensors = find(j, "tensors");
  if (tensors == nullptr) return recipe;
  if (!tensors->is_object()) throw Error({"not an object", "", "tensors", "", "", ""});
  for (const auto& [pattern, value] : tensors->items()) {
    const std::string name = value.is_string() ? value.get<std::string>() : "not a text";
    const std::optional<DType> type = dtype_from_name(name);
    if (!type || !info(*type).computable) {
      throw Error(
          {"no such type of a matrix", "", "tensors: " + pattern, computable_names(), name, ""});
    }
    recipe.tensors.emplace_back(pattern, *type);
  }
  return recipe;
} catch (const Error& e) {
  throw e.with_file(path);
}

bool fits_rows(const model::Config& config, model::TensorRef t, DType type) {
  return block_unit(config, t) % info(type).block_elements == 0;
}

DType type_in(const Recipe& recipe, const model::Config& config, model::TensorRef t) {
  const std::string name = model::gguf_name(t);
  const Shape shape = model::shape_of(config, t);
  for (const auto& [pattern, type] : recipe.tensors) {
    if (shape.size() < 2 || !fits_pattern(name, pattern)) continue;
    if (fits_rows(config, t, type)) return type;
    throw Error({fmt::format("rows of the tensor are not whole blocks of {}", name_of(type)), "",
                 "tensor " + name, fmt::format("a multiple of {}", info(type).block_elements),
                 fmt::format("{}", block_unit(config, t)), "give it another type in the recipe"});
  }
  return type_in(gguf_recipe(recipe.base), config, t);
}

std::vector<std::string> unused_patterns(const Recipe& recipe, const model::Config& config) {
  std::vector<std::string> unused;
  const std::vector<model::TensorRef> tensors = model::required_tensors(config);
  for (const auto& [pattern, type] : recipe.tensors) {
    const bool fits = std::any_of(tensors.begin(), tensors.end(), [&](model::TensorRef t) {
      return model::shape_of(config, t).size() >= 2 && fits_pattern(model::gguf_name(t), pattern);
    });
    if (!fits) unused.push_back(pattern);
  }
  return unused;
}

DType type_in(const GgufRecipe& recipe, const model::Config& config, model::TensorRef t) {
  const DType type = wanted_type(recipe, config, t);
  return fits_rows(config, t, type) ? type : with_small_blocks(type);
}

}  // namespace carat::convert
