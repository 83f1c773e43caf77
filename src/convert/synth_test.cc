#include "convert/synth.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "convert/synth_pieces.h"
#include "io/safetensors_reader.h"
#include "io/testing/temp_dir.h"
#include "model/config.h"
#include "text/tokenizer.h"

namespace carat::convert {
namespace {

TEST(SyntheticVocab, HasThePublishedSizes) {
  const text::Vocab vocab = synthetic_vocab(262144);
  EXPECT_EQ(vocab.size(), 262144);
  EXPECT_EQ(vocab.merges.size(), 514906u);
}

TEST(SyntheticVocab, SmallOnesHaveEverythingATokenizerNeeds) {
  const text::Vocab vocab = synthetic_vocab(512);
  EXPECT_EQ(vocab.size(), 512);
  EXPECT_TRUE(vocab.special.has_turns());
  EXPECT_EQ(vocab.byte_tokens.size(), 256u);
  const text::Tokenizer tokenizer(vocab);
  for (const std::string text : {"the wizard", "\n\n\n", "caf\xc3\xa9 {x}\t1+1", " a  b\n\nc"}) {
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  // A run of newlines is one token, and a learned string too.
  EXPECT_EQ(tokenizer.encode("\n\n\n").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" a").size(), 1u);
}

TEST(SyntheticVocab, LongerStringsAreOneToken) {
  const text::Tokenizer tokenizer(synthetic_vocab(32768));
  EXPECT_EQ(tokenizer.encode("abc").size(), 1u);
  EXPECT_EQ(tokenizer.encode(" ab").size(), 1u);
}

int64_t bytes_on_disk(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) {
    return static_cast<int64_t>(std::filesystem::file_size(path));
  }
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(path)) {
    bytes += static_cast<int64_t>(file.file_size());
  }
  return bytes;
}

TEST(SyntheticBytes, AreThoseOfTheFiles) {
  const io::testing::TempDir dir;
  int n = 0;
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const text::Vocab vocab =
        synthetic_vocab(static_cast<int32_t>(model::config_of_size(size).vocab_size));
    const auto expect_exact = [&](const char* type, bool gguf) {
      SynthOptions options;
      options.size = size;
      options.type = type;
      options.gguf = gguf;
      options.target = dir.file(std::to_string(n++) + (gguf ? ".gguf" : ""));
      (void)write_synthetic(options);
      EXPECT_EQ(synthetic_bytes(options, vocab), bytes_on_disk(options.target))
          << size << " " << type << (gguf ? " gguf" : " hf");
    };
    for (const char* type : {"bf16", "q4_0", "q4_k_m", "q8_0"}) expect_exact(type, true);
    for (const char* type : {"f32", "bf16", "q4_0", "w4a16-ct"}) expect_exact(type, false);
    if (model::config_of_size(size).has_ple()) {
      for (const char* type : {"mobile-transformers", "mobile-ct"}) expect_exact(type, false);
    }
  }
}

SynthOptions directory(const std::string& target, const char* size, const char* type) {
  SynthOptions options;
  options.size = size;
  options.type = type;
  options.gguf = false;
  options.target = target;
  return options;
}

TEST(SyntheticCodes, HaveThePublishedTensors) {
  const io::testing::TempDir dir;
  (void)write_synthetic(directory(dir.file("m"), "tiny", "mobile-transformers"));
  const auto source = io::open_safetensors(dir.file("m") + "/model.safetensors");
  const auto expect = [&](const std::string& name, DType dtype, const Shape& shape) {
    const io::TensorEntry* entry = source->find(name);
    ASSERT_NE(entry, nullptr) << name;
    EXPECT_EQ(entry->dtype, dtype) << name;
    EXPECT_EQ(entry->shape, shape) << name;
  };
  const std::string layer = "model.language_model.layers.4.";
  expect("model.language_model.embed_tokens.embedding_quantized", DType::kU8, {512, 64});
  expect("model.language_model.embed_tokens.embedding_scale", DType::kF32, {512, 1});
  expect("model.language_model.embed_tokens_per_layer.embedding_quantized", DType::kU8, {512, 768});
  expect("model.language_model.embed_tokens_per_layer.embedding_scale", DType::kF32, {512, 6});
  expect("model.language_model.per_layer_model_projection.weight", DType::kBF16, {1536, 256});
  expect("lm_head.weight", DType::kU8, {512, 64});
  expect("lm_head.input_activation_scale", DType::kF32, {});
  expect(layer + "self_attn.k_proj.weight", DType::kU8, {32, 128});
  expect(layer + "self_attn.k_cache_scale", DType::kF32, {});
  expect(layer + "mlp.down_proj.weight", DType::kU8, {256, 128});
  expect(layer + "mlp.down_proj.weight_scale", DType::kF32, {256, 1});
  expect(layer + "per_layer_projection.weight", DType::kI8, {256, 256});
  EXPECT_EQ(source->find(layer + "self_attn.k_norm.weight"), nullptr);
  EXPECT_EQ(source->find("model.language_model.embed_tokens.weight"), nullptr);
}

TEST(SyntheticCodes, ExpertsArePackedInThreeDimensions) {
  const io::testing::TempDir dir;
  (void)write_synthetic(directory(dir.file("m"), "tinymoe", "w4a16-ct"));
  const auto source = io::open_safetensors(dir.file("m") + "/model.safetensors");
  const std::string name = "model.language_model.layers.0.experts.gate_up_proj_";
  ASSERT_NE(source->find(name + "packed"), nullptr);
  EXPECT_EQ(source->find(name + "packed")->shape, (Shape{16, 128, 32}));
  EXPECT_EQ(source->find(name + "scale")->shape, (Shape{16, 128, 8}));
  EXPECT_EQ(source->find("model.language_model.embed_tokens.weight")->dtype, DType::kBF16);
}

TEST(SyntheticCodes, AreRefusedWhereTheyHaveNoForm) {
  const io::testing::TempDir dir;
  for (const char* size : {"tinykv", "tinymoe", "12B", "26B-A4B"}) {
    EXPECT_THROW((void)write_synthetic(directory(dir.file("m"), size, "mobile-ct")), Error);
  }
  SynthOptions options = directory(dir.file("m"), "tiny", "mobile-ct");
  options.gguf = true;
  EXPECT_THROW((void)write_synthetic(options), Error);
  EXPECT_FALSE(std::filesystem::exists(dir.file("m")));
}

TEST(SyntheticLayers, AreWholePatternsOfTheModel) {
  const auto config = [](const char* size, int64_t layers) {
    SynthOptions options;
    options.size = size;
    options.layers = layers;
    return synth_config(options);
  };
  EXPECT_EQ(config("E2B", 0), model::config_of_size("E2B"));
  EXPECT_EQ(config("E2B", 35), model::config_of_size("E2B"));
  EXPECT_EQ(config("E2B", 5).n_kv_shared_layers, 0);
  EXPECT_EQ(config("E2B", 10).n_kv_shared_layers, 5);
  EXPECT_EQ(config("E2B", 20).n_kv_shared_layers, 10);
  EXPECT_EQ(config("E4B", 12).n_kv_shared_layers, 6);
  EXPECT_EQ(config("31B", 12).n_layers, 12);
  EXPECT_TRUE(config("31B", 12).is_global[11]);
  for (const int64_t layers : {-5, 3, 40}) EXPECT_THROW((void)config("E2B", layers), Error);
}

}  // namespace
}  // namespace carat::convert
