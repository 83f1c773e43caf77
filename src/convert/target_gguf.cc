#include "convert/gguf_fields.h"
#include "convert/recipe.h"
#include "convert/target.h"

namespace carat::convert {
namespace {

// The model's tensors, then the divisors of the rotary frequencies, which only GGUF has.
class GgufTarget final : public Target {
 public:
  GgufTarget(const std::string& path, const io::GgufFields& fields,
             std::vector<io::TensorSpec> specs, std::vector<float> rope_freqs,
             const io::WriteOptions& write)
      : rope_freqs_(std::move(rope_freqs)),
        writer_(path, fields, with_rope_freqs(std::move(specs), rope_freqs_.size()), write) {}

  io::TensorWriter& tensors() override { return writer_; }
  void finish() override {
    writer_.write(model::kRopeFreqsName, std::as_bytes(std::span(rope_freqs_)));
    writer_.finish();
  }

 private:
  static std::vector<io::TensorSpec> with_rope_freqs(std::vector<io::TensorSpec> specs, size_t n) {
    specs.push_back({model::kRopeFreqsName, DType::kF32, {static_cast<int64_t>(n)}});
    return specs;
  }

  std::vector<float> rope_freqs_;
  io::GgufWriter writer_;
};

}  // namespace

std::unique_ptr<Target> make_gguf_target(const ConvertOptions& options, const model::Model& model,
                                         const SideFiles& side, std::vector<io::TensorSpec> specs,
                                         const io::WriteOptions& write) {
  GgufMetadataInput input;
  input.config = &model.config();
  input.vocab = model.tokenizer ? &model.tokenizer->vocab() : nullptr;
  input.generation = &model.generation;
  input.name = side.name;
  input.chat_template = side.chat_template;
  const char* const type = options.format == Format::kGgufBf16 ? "bf16" : "q4_0";
  input.file_type =
      gguf_recipe(options.format == Format::kGguf ? options.recipe.base : type).file_type;
  return std::make_unique<GgufTarget>(options.target, gguf_fields(input), std::move(specs),
                                      model::rope_freqs(model.config()), write);
}

}  // namespace carat::convert
