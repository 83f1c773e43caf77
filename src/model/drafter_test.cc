#include "model/drafter.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/error.h"

namespace carat::model {
namespace {

// Numbers that were published, and the sum of the parts for E4B.
TEST(Drafter, ParametersAreThePublishedOnes) {
  // The published safetensors file, less its header of about 110 bytes a tensor.
  const int64_t header = 939'042'560 - 2 * drafter_parameter_count(drafter_of_size("31B"));
  EXPECT_GT(header, 48 * 80);
  EXPECT_LT(header, 48 * 130);
  const int64_t e4b = 67'108'864 + 1'310'720 + 655'360 + 8'912'896 + 524'288 + 262'144;
  // The parts leave out norms and scalars: 4 norms of 256, q_norm and a scalar a layer, one norm.
  const int64_t norms = 4 * (4 * 256 + 1) + 3 * 256 + 512 + 256;
  EXPECT_EQ(drafter_parameter_count(drafter_of_size("E4B")), e4b + norms);
}

TEST(Drafter, ShapesAreThePublishedOnes) {
  const DrafterConfig d = drafter_of_size("E2B");
  std::set<std::string> hf, gguf;
  for (const DrafterTensor& t : drafter_tensors(d)) {
    EXPECT_TRUE(hf.insert(drafter_hf_name(t)).second);
    EXPECT_TRUE(gguf.insert(drafter_gguf_name(t)).second);
    const Shape shape = drafter_shape(d, t);
    const std::string name = drafter_hf_name(t);
    if (name == "pre_projection.weight") {
      EXPECT_EQ(shape, (Shape{256, 3072}));
    }
    if (name == "post_projection.weight") {
      EXPECT_EQ(shape, (Shape{1536, 256}));
    }
    if (name == "model.layers.3.self_attn.q_proj.weight") {
      EXPECT_EQ(shape, (Shape{2048, 256}));
    }
    if (name == "masked_embedding.centroids.weight") {
      EXPECT_EQ(shape, (Shape{2048, 256}));
    }
    if (name == "masked_embedding.token_ordering") {
      EXPECT_EQ(shape, (Shape{262144}));
    }
  }
  EXPECT_EQ(hf.size(), 4u + 2u + 4u * 11u);
  EXPECT_TRUE(gguf.count("nextn.pre_projection.weight"));
  EXPECT_TRUE(gguf.count("blk.3.layer_output_scale.weight"));
  EXPECT_FALSE(hf.count("model.layers.0.self_attn.k_proj.weight"));
  EXPECT_EQ(drafter_tensors(drafter_of_size("31B")).size(), 4u + 4u * 11u);
}

TEST(Drafter, ConfigRoundTripsThroughHf) {
  for (const char* size : {"E2B", "E4B", "12B", "26B-A4B", "31B", "tiny", "tinykv", "tinymoe"}) {
    const DrafterConfig d = drafter_of_size(size);
    d.validate();
    const Json j = drafter_to_hf(d);
    EXPECT_EQ(drafter_from_hf(j), d) << size;
    EXPECT_EQ(get_int(j["text_config"], "num_kv_shared_layers", 0, 9), 4);
  }
  EXPECT_EQ(drafter_of_size("12B").layers.n_kv_heads_global, 1);
  EXPECT_EQ(drafter_of_size("31B").layers.n_heads, 32);
  EXPECT_TRUE(drafter_of_size("12B").unified);
}

std::string error_of(const Json& config) {
  try {
    (void)drafter_from_hf(config);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Drafter, BadConfigsAreNamed) {
  const Json good = drafter_to_hf(drafter_of_size("tiny"));
  Json j = good;
  j["num_centroids"] = 33;
  EXPECT_NE(error_of(j).find("a divisor of the 512 tokens"), std::string::npos) << error_of(j);
  j = good;
  j["centroid_intermediate_top_k"] = 100;
  EXPECT_NE(error_of(j).find("active centroids"), std::string::npos) << error_of(j);
  j = good;
  j["text_config"]["hidden_size_per_layer_input"] = 256;
  EXPECT_NE(error_of(j), "");
  j = good;
  j.erase("text_config");
  EXPECT_NE(error_of(j).find("text_config"), std::string::npos) << error_of(j);
  EXPECT_FALSE(is_drafter(Json{{"model_type", "gemma4"}}));
  EXPECT_FALSE(is_drafter(Json{{"model_type", 3}}));
  EXPECT_FALSE(is_drafter(Json()));
}

}  // namespace
}  // namespace carat::model
