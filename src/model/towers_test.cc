#include "model/towers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>

#include "base/checked.h"
#include "base/error.h"

namespace carat::model {
namespace {

struct Counts {
  int64_t vision = 0, vision_embed = 0, audio = 0, audio_embed = 0;
};

Counts count(const TowersConfig& config) {
  Counts n;
  for (const TowerTensor& t : tower_tensors(config)) {
    const std::string name = tower_hf_name(t);
    n.vision +=
        name.starts_with("model.vision_tower.") || name.starts_with("model.vision_embedder.");
    n.vision_embed += name.starts_with("model.embed_vision.");
    n.audio += name.starts_with("model.audio_tower.");
    n.audio_embed += name.starts_with("model.embed_audio.");
  }
  return n;
}

// Numbers of tensors of the published checkpoints.
TEST(Towers, CountsAreThePublishedOnes) {
  const Counts e2b = count(towers_of_size("E2B"));
  EXPECT_EQ(e2b.vision, 658);
  EXPECT_EQ(e2b.vision_embed, 1);
  EXPECT_EQ(e2b.audio, 751);
  EXPECT_EQ(e2b.audio_embed, 1);
  const Counts large = count(towers_of_size("31B"));
  EXPECT_EQ(large.vision + large.vision_embed, 356);
  EXPECT_EQ(large.audio, 0);
  const Counts unified = count(towers_of_size("12B"));
  EXPECT_EQ(unified.vision, 9);
  EXPECT_EQ(unified.vision_embed, 1);
  EXPECT_EQ(unified.audio, 0);
  EXPECT_EQ(unified.audio_embed, 1);
}

// Tensors and their descriptions as a GGUF file holds them, without metadata keys.
int64_t gguf_bytes(const TowersConfig& config) {
  int64_t infos = 0, data = 0;
  for (const TowerTensor& t : tower_tensors(config)) {
    const Shape shape = tower_gguf_shape(config, t);
    infos += 8 + static_cast<int64_t>(tower_gguf_name(t).size()) + 4 +
             8 * static_cast<int64_t>(shape.size()) + 4 + 8;
    data += round_up(*byte_count(tower_gguf_type(t), shape), int64_t{32});
  }
  return infos + data;
}

// What is left of the published files' sizes must be a page of metadata: types, shapes and presence
// of all tensors are right.
TEST(Towers, FilesHaveThePublishedSize) {
  const std::pair<const char*, int64_t> published[] = {
      {"E2B", 986'833'664}, {"E4B", 991'552'256}, {"31B", 1'200'726'368}};
  for (const auto& [size, bytes] : published) {
    const int64_t metadata = bytes - gguf_bytes(towers_of_size(size));
    EXPECT_GT(metadata, 500) << size;
    EXPECT_LT(metadata, 3000) << size;
  }
}

TEST(Towers, NamesAreUniqueAndAsPublished) {
  for (const char* size : {"E2B", "12B", "31B", "tiny", "tinykv"}) {
    std::set<std::string> hf, gguf;
    for (const TowerTensor& t : tower_tensors(towers_of_size(size))) {
      EXPECT_TRUE(hf.insert(tower_hf_name(t)).second) << tower_hf_name(t);
      EXPECT_TRUE(gguf.insert(tower_gguf_name(t)).second) << tower_gguf_name(t);
      EXPECT_LE(tower_gguf_name(t).size(), 63u);
    }
    if (std::string(size) == "E2B") {
      EXPECT_TRUE(hf.count("model.vision_tower.encoder.layers.15.self_attn.q_proj.input_min"));
      EXPECT_TRUE(gguf.count("v.blk.15.attn_q.input_min"));
      EXPECT_TRUE(hf.count("model.audio_tower.layers.11.lconv1d.depthwise_conv1d.weight"));
      EXPECT_TRUE(gguf.count("a.blk.11.conv_dw.weight"));
      EXPECT_TRUE(gguf.count("a.blk.3.ffn_up_1.output_max"));
      EXPECT_FALSE(gguf.count("a.blk.3.attn_k_rel.output_max"));
      EXPECT_TRUE(gguf.count("a.blk.0.per_dim_scale.weight"));
    }
    if (std::string(size) == "31B") {
      EXPECT_TRUE(gguf.count("v.std_bias"));
      EXPECT_FALSE(gguf.count("v.blk.0.attn_q.input_min"));
    }
  }
}

TEST(Towers, ElementsAreTheSameInBothContainers) {
  for (const char* size : {"E2B", "12B", "31B", "tiny", "tinykv"}) {
    const TowersConfig config = towers_of_size(size);
    for (const TowerTensor& t : tower_tensors(config)) {
      const Shape hf = tower_hf_shape(config, t);
      const Shape gguf = tower_gguf_shape(config, t);
      EXPECT_EQ(hf.empty() ? 1 : *element_count(hf), *element_count(gguf)) << tower_hf_name(t);
    }
  }
}

TEST(Towers, ConfigRoundTripsThroughHf) {
  for (const char* size : {"E2B", "E4B", "12B", "26B-A4B", "31B", "tiny", "tinykv"}) {
    const TowersConfig config = towers_of_size(size);
    EXPECT_EQ(towers_from_hf(towers_to_hf(config)), config) << size;
  }
}

std::string error_of(const Json& config) {
  try {
    (void)towers_from_hf(config);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Towers, BadConfigsAreNamed) {
  const Json good = towers_to_hf(towers_of_size("tiny"));
  Json j = good;
  j["vision_config"]["model_type"] = "siglip";
  EXPECT_NE(error_of(j).find("vision_config.model_type"), std::string::npos) << error_of(j);
  j = good;
  j["vision_config"]["num_key_value_heads"] = 1;
  EXPECT_NE(error_of(j).find("num_key_value_heads"), std::string::npos) << error_of(j);
  j = good;
  j["audio_config"]["num_hidden_layers"] = 100000;
  EXPECT_NE(error_of(j).find("layers of the audio tower"), std::string::npos) << error_of(j);
  j = good;
  j["audio_config"]["subsampling_conv_channels"] = {1, 2, 3};
  EXPECT_NE(error_of(j).find("subsampling_conv_channels"), std::string::npos) << error_of(j);
  j = good;
  j["vision_config"] = j["audio_config"] = nullptr;
  EXPECT_NE(error_of(j).find("no vision or audio tower"), std::string::npos) << error_of(j);
}

// A 2 x 2 patch: colours of row 0 are RGBRGB.
TEST(Towers, PlanesTakeColoursApart) {
  EXPECT_EQ(planes_permutation(2), (std::vector<int32_t>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
  std::vector<int32_t> sorted = planes_permutation(48);
  std::sort(sorted.begin(), sorted.end());
  std::vector<int32_t> all(6912);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
}

}  // namespace
}  // namespace carat::model
