#include "convert/recipe.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "base/error.h"
#include "convert/testing/checkpoints.h"

namespace carat::convert {
namespace {

// Types of every tensor of a kind, layer by layer, as "Q4_K Q4_K Q6_K".
std::map<model::TensorKind, std::string> types_of(const char* recipe, const char* size) {
  const model::Config config = model::config_of_size(size);
  std::map<model::TensorKind, std::string> types;
  for (const model::TensorRef t : model::required_tensors(config)) {
    std::string& text = types[t.kind];
    text +=
        (text.empty() ? "" : " ") + std::string(name_of(type_in(gguf_recipe(recipe), config, t)));
  }
  return types;
}

// Expected: what llama-quantize made of the same models.
TEST(GgufRecipe, Q4KMIsLlamaCppsMix) {
  using K = model::TensorKind;
  auto tiny = types_of("q4_k_m", "tiny");
  EXPECT_EQ(tiny[K::kTokenEmbedding], "Q6_K");
  EXPECT_EQ(tiny[K::kPleTable], "Q6_K");
  EXPECT_EQ(tiny[K::kPleProjection], "F16");
  EXPECT_EQ(tiny[K::kV], "Q4_K Q4_K Q6_K");
  EXPECT_EQ(tiny[K::kDown], "Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K");
  EXPECT_EQ(tiny[K::kO], "Q5_0 Q5_0 Q4_K Q5_0 Q5_0 Q4_K");
  EXPECT_EQ(tiny[K::kPleGate], "Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(tiny[K::kOutputNorm], "F32");
  auto moe = types_of("q4_k_m", "tinymoe");
  EXPECT_EQ(moe[K::kV], "Q4_K Q4_K Q6_K Q6_K");
  EXPECT_EQ(moe[K::kDown], "Q5_0 Q5_0 Q8_0 Q5_0 Q5_0 Q8_0");
  EXPECT_EQ(moe[K::kExpertsDown], "Q5_0 Q5_0 Q8_0 Q5_0 Q5_0 Q8_0");
  EXPECT_EQ(moe[K::kExpertsGateUp], "Q4_K Q4_K Q4_K Q4_K Q4_K Q4_K");
  EXPECT_EQ(moe[K::kRouter], "F32 F32 F32 F32 F32 F32");
}

TEST(GgufRecipe, Q8_0KeepsTheTablesInItsOwnType) {
  auto types = types_of("q8_0", "tiny");
  EXPECT_EQ(types[model::TensorKind::kTokenEmbedding], "Q8_0");
  EXPECT_EQ(types[model::TensorKind::kPleTable], "Q8_0");
  EXPECT_EQ(types[model::TensorKind::kV], "Q8_0 Q8_0 Q8_0");
}

TEST(GgufRecipe, EveryTypeThatIsComputableHasOneAndFitsEveryModel) {
  for (const DTypeInfo& i : all_dtypes()) {
    if (!i.computable) continue;
    std::string name = i.name;
    for (char& c : name) c = static_cast<char>(std::tolower(c));
    EXPECT_EQ(gguf_recipe(name).matrix, i.dtype);
  }
  for (const GgufRecipe& r : gguf_recipes()) {
    for (const std::string& size : model::config_size_names()) {
      const model::Config config = model::config_of_size(size);
      for (const model::TensorRef t : model::required_tensors(config)) {
        const DType type = type_in(r, config, t);
        EXPECT_TRUE(info(type).computable);
        EXPECT_EQ(model::shape_of(config, t).back() % info(type).block_elements, 0)
            << r.name << " " << size << " " << model::gguf_name(t);
      }
    }
  }
}

TEST(GgufRecipe, UnknownNamesAreRefusedWithTheList) {
  try {
    (void)gguf_recipe("q7");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("q4_k_m"), std::string::npos);
  }
}

TEST(Recipe, MaySayWhereItComesFrom) {
  const testing::TemporaryFolder folder("recipe");
  const std::string path = folder / "r.json";
  std::ofstream(path) << R"({"recipe": "q4_k", "about": {"kld": 0.01}, "tensors": {}})";
  EXPECT_EQ(read_recipe(path).base, "q4_k");
  std::ofstream(path) << R"({"recipe": "q4_k", "about": "somebody"})";
  EXPECT_THROW((void)read_recipe(path), Error);
}

TEST(Recipe, BlocksOfThePerLayerTableStayInOneLayer) {
  model::Config config = model::config_of_size("tiny");
  ASSERT_TRUE(config.has_ple());
  const model::TensorRef table{model::TensorKind::kPleTable, -1};
  config.n_layers = 4;
  config.ple_dim = 128;  // 512 columns are whole blocks of 256, a layer's 128 are not
  EXPECT_EQ(type_in(gguf_recipe("q6_k"), config, table), DType::kQ8_0);
  config.ple_dim = 256;
  EXPECT_EQ(type_in(gguf_recipe("q6_k"), config, table), DType::kQ6_K);
}

}  // namespace
}  // namespace carat::convert
