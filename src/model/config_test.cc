#include "model/config.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "model/tensors.h"

namespace carat::model {
namespace {

TEST(Config, SizesAreValidAndSurviveHuggingFaceForm) {
  for (const std::string& name : config_size_names()) {
    const Config c = config_of_size(name);
    c.validate();
    EXPECT_EQ(config_from_hf(config_to_hf(c)), c) << name;
    // Through text: decimals must come back as the same floats.
    EXPECT_EQ(config_from_hf(parse_json(to_json_text(config_to_hf(c)))), c) << name;
  }
}

TEST(Config, HuggingFaceFormKeepsHeadsThatDifferWithoutSharedKAndV) {
  Config c = config_of_size("tinykv");
  c.k_eq_v = false;
  c.n_kv_heads_local = 2;
  c.n_kv_heads_global = 4;
  c.validate();
  EXPECT_EQ(config_from_hf(config_to_hf(c)), c);
}

TEST(Config, SizeNamesAreCaseInsensitive) {
  EXPECT_EQ(config_of_size("e2b"), config_of_size("E2B"));
  EXPECT_EQ(config_of_size("26b-a4b").n_experts, 128);
  EXPECT_THROW((void)config_of_size("7B"), Error);
}

TEST(Config, LayersOfE2B) {
  const Config c = config_of_size("E2B");
  EXPECT_EQ(c.n_owners(), 15);
  EXPECT_EQ(c.rotated_pairs_global(), 64);
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const LayerConfig l = c.layer(i);
    EXPECT_EQ(l.is_global, i % 5 == 4);
    EXPECT_EQ(l.head_dim, l.is_global ? 512 : 256);
    EXPECT_EQ(l.window, l.is_global ? 0 : 512);
    EXPECT_EQ(l.ffn_dim, i < 15 ? 6144 : 12288);
    EXPECT_EQ(l.owns_kv, i < 15);
    EXPECT_EQ(l.kv_layer, i < 15 ? i : (l.is_global ? 14 : 13));
  }
}

TEST(Config, LayersOf31B) {
  const Config c = config_of_size("31B");
  EXPECT_EQ(c.layer(5).n_kv_heads, 4);
  EXPECT_TRUE(c.layer(5).k_eq_v);
  EXPECT_EQ(c.layer(4).n_kv_heads, 16);
  EXPECT_FALSE(c.layer(4).k_eq_v);
}

TEST(Config, RopeFreqs) {
  const std::vector<float> f = rope_freqs(config_of_size("12B"));
  ASSERT_EQ(f.size(), 256u);
  EXPECT_EQ(f[63], 1.0f);
  EXPECT_EQ(f[64], 1e30f);
}

Json published_e2b() {
  // The flat form of June 2026: the text model inside a multimodal config, and keys of no interest.
  Json text = config_to_hf(config_of_size("E2B"));
  text.erase("architectures");
  Json j;
  j["architectures"] = {"Gemma4ForConditionalGeneration"};
  j["model_type"] = "gemma4";
  j["text_config"] = text;
  j["vision_config"] = {{"model_type", "gemma4_vision"}, {"hidden_size", 768}};
  j["boi_token_id"] = 255999;
  return j;
}

TEST(ConfigHf, FindsTheTextConfig) {
  EXPECT_EQ(config_from_hf(published_e2b()), config_of_size("E2B"));
}

TEST(ConfigHf, TheTextConfigTellsFirstWhetherTheEmbeddingIsTied) {
  Json j = published_e2b();
  j["text_config"].erase("tie_word_embeddings");
  j.erase("tie_word_embeddings");
  EXPECT_TRUE(config_from_hf(j).tied_embeddings);
  j["tie_word_embeddings"] = false;
  const Config c = config_from_hf(j);
  EXPECT_FALSE(c.tied_embeddings);
  bool needs_head = false;
  for (const TensorRef t : required_tensors(c)) needs_head |= t.kind == TensorKind::kLmHead;
  EXPECT_TRUE(needs_head);
  j["text_config"]["tie_word_embeddings"] = true;
  EXPECT_TRUE(config_from_hf(j).tied_embeddings);
}

TEST(ConfigHf, PerLayerForm) {
  for (const char* name : {"E2B", "12B", "26B-A4B"}) {
    const Config c = config_of_size(name);
    Json j = config_to_hf(c);
    j.erase("global_head_dim");
    j.erase("num_global_key_value_heads");
    for (int64_t i = 0; i < c.n_layers; ++i) {
      if (!c.layer(i).is_global) continue;
      Json& o = j["per_layer_config"][std::to_string(i)];
      o["head_dim"] = c.head_dim_global;
      if (c.k_eq_v) o["num_key_value_heads"] = c.n_kv_heads_global;
    }
    EXPECT_EQ(config_from_hf(j), c) << name;
  }
}

TEST(ConfigHf, GlobalHeadsCountOnlyWhereKIsV) {
  Json j = config_to_hf(config_of_size("E4B"));
  j["num_global_key_value_heads"] = 1;
  EXPECT_EQ(config_from_hf(j).n_kv_heads_global, 2);
}

TEST(ConfigHf, RefusesWhatItCannotRun) {
  const std::vector<std::function<void(Json&)>> edits = {
      [](Json& j) { j["model_type"] = "llama"; },
      [](Json& j) { j["model_type"] = "gemma4_assistant"; },
      [](Json& j) { j.erase("model_type"); },
      [](Json& j) { j.erase("hidden_size"); },
      [](Json& j) { j["hidden_size"] = 0; },
      [](Json& j) { j["hidden_size"] = -5; },
      [](Json& j) { j["hidden_size"] = 1.5; },
      [](Json& j) { j["hidden_size"] = "1536"; },
      [](Json& j) { j["hidden_size"] = 1LL << 60; },
      [](Json& j) { j["hidden_size"] = (1 << 20) + 1; },
      [](Json& j) { j["num_hidden_layers"] = 513; },
      [](Json& j) { j["num_hidden_layers"] = 34; },
      [](Json& j) { j["vocab_size"] = (1 << 22) + 1; },
      [](Json& j) { j["vocab_size"] = 1000; },  // the per-layer vocabulary differs
      [](Json& j) { j["num_key_value_heads"] = 3; },
      [](Json& j) { j["num_attention_heads"] = 1 << 19; },
      [](Json& j) { j["head_dim"] = 255; },
      [](Json& j) { j["sliding_window"] = 0; },
      [](Json& j) { j["num_kv_shared_layers"] = 35; },
      [](Json& j) { j["num_kv_shared_layers"] = 32; },  // no global layer left to share with
      [](Json& j) { j["layer_types"][0] = "linear_attention"; },
      [](Json& j) { j["layer_types"][0] = 7; },
      [](Json& j) { j["layer_types"] = "full_attention"; },
      [](Json& j) { j["layer_types"][34] = "sliding_attention"; },
      [](Json& j) { j["layer_types"].push_back("full_attention"); },
      [](Json& j) { j["hidden_activation"] = "silu"; },
      [](Json& j) { j["attention_bias"] = true; },
      [](Json& j) { j["use_bidirectional_attention"] = "all"; },
      [](Json& j) { j["enable_moe_block"] = true; },  // without numbers of experts
      [](Json& j) {
        j["enable_moe_block"] = true;
        j["num_experts"] = 4;
        j["top_k_experts"] = 5;
        j["moe_intermediate_size"] = 32;
      },
      [](Json& j) { j["rms_norm_eps"] = -1.0; },
      [](Json& j) { j["rope_parameters"]["full_attention"]["rope_type"] = "yarn"; },
      [](Json& j) { j["rope_parameters"]["full_attention"]["partial_rotary_factor"] = 2.0; },
      [](Json& j) { j["per_layer_config"] = Json::array(); },
      [](Json& j) { j["per_layer_config"]["35"]["head_dim"] = 512; },
      [](Json& j) { j["per_layer_config"]["x"]["head_dim"] = 512; },
      [](Json& j) { j["per_layer_config"]["4"]["hidden_size"] = 512; },
      [](Json& j) { j["per_layer_config"]["4"]["head_dim"] = 512; },  // the others stay at 256
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    Json j = config_to_hf(config_of_size("E2B"));
    edits[i](j);
    EXPECT_THROW((void)config_from_hf(j), Error) << "edit " << i;
  }
}

TEST(ConfigHf, DrafterIsNamed) {
  Json j = config_to_hf(config_of_size("E2B"));
  j["model_type"] = "gemma4_assistant";
  try {
    (void)config_from_hf(j);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(e.info().hint.find("drafter"), std::string::npos);
  }
}

}  // namespace
}  // namespace carat::model
