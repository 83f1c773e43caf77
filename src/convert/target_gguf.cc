#include <map>
#include <string>
#include <unordered_set>

#include "convert/gguf_fields.h"
#include "convert/recipe.h"
#include "convert/target.h"

namespace carat::convert {
namespace {

// The mix that general.file_type names: the recipe's, or, where types of single tensors leave it to
// fewer weights of linear layers than another type, one of that type.
uint32_t file_type_of(const Recipe& recipe, const model::Config& config,
                      const std::vector<io::TensorSpec>& specs) {
  const GgufRecipe& base = gguf_recipe(recipe.base);
  if (recipe.tensors.empty()) return base.file_type;
  std::unordered_set<std::string> linear;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    if (model::row_of(ref.kind).cls != model::TensorClass::kMatrix) continue;
    linear.insert(model::gguf_name(ref));
  }
  std::map<DType, int64_t> weights;
  for (const io::TensorSpec& s : specs) {
    if (linear.contains(s.name)) weights[s.dtype] += *element_count(s.shape);
  }
  const GgufRecipe* most = &base;
  for (const GgufRecipe& r : gguf_recipes()) {
    if (weights[r.matrix] > weights[most->matrix]) most = &r;
  }
  return most->file_type;
}

}  // namespace

TargetParts gguf_parts(const ConvertOptions& options, const model::Model& model,
                       const SideFiles& side, std::vector<io::TensorSpec> specs) {
  GgufMetadataInput input;
  input.config = &model.config();
  input.vocab = model.tokenizer ? &model.tokenizer->vocab() : nullptr;
  input.generation = &model.generation;
  input.name = side.name;
  input.chat_template = side.chat_template;
  if (options.format == Format::kGguf) {
    input.file_type = file_type_of(options.recipe, model.config(), specs);
    input.is_mixed = !options.recipe.tensors.empty();
  } else {
    input.file_type = gguf_recipe(options.format == Format::kGgufBf16 ? "bf16" : "q4_0").file_type;
  }
  TargetParts parts;
  parts.path = options.target;
  parts.fields = gguf_fields(input);
  parts.specs = std::move(specs);
  parts.rope_freqs = model::rope_freqs(model.config());
  parts.max_file_bytes = options.max_file_bytes;
  return parts;
}

}  // namespace carat::convert
