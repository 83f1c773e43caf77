#include "convert/gguf_fields.h"
#include "convert/recipe.h"
#include "convert/target.h"

namespace carat::convert {

TargetParts gguf_parts(const ConvertOptions& options, const model::Model& model,
                       const SideFiles& side, std::vector<io::TensorSpec> specs) {
  GgufMetadataInput input;
  input.config = &model.config();
  input.vocab = model.tokenizer ? &model.tokenizer->vocab() : nullptr;
  input.generation = &model.generation;
  input.name = side.name;
  input.chat_template = side.chat_template;
  const char* const type = options.format == Format::kGgufBf16 ? "bf16" : "q4_0";
  input.file_type =
      gguf_recipe(options.format == Format::kGguf ? options.recipe.base : type).file_type;
  TargetParts parts;
  parts.path = options.target;
  parts.fields = gguf_fields(input);
  parts.specs = std::move(specs);
  parts.rope_freqs = model::rope_freqs(model.config());
  parts.max_file_bytes = options.max_file_bytes;
  return parts;
}

}  // namespace carat::convert
