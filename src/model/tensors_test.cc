#include "model/tensors.h"

#include <gtest/gtest.h>

#include <set>

namespace carat::model {
namespace {

struct Published {
  const char* size;
  size_t n_tensors;      // Hugging Face, text only, without the unused K and V
  int64_t n_parameters;  // with the 256 rotary frequencies of GGUF
};

TEST(Tensors, CountsAreThePublishedOnes) {
  const Published all[] = {{"E2B", 540, 4'628'569'635},
                           {"E4B", 665, 7'463'013'674},
                           {"12B", 666, 11'907'350'576},
                           {"26B-A4B", 657, 25'233'142'046},
                           {"31B", 832, 30'697'345'596}};
  for (const Published& p : all) {
    const Config c = config_of_size(p.size);
    EXPECT_EQ(required_tensors(c).size(), p.n_tensors) << p.size;
    EXPECT_EQ(parameter_count(c) + 256, p.n_parameters) << p.size;
  }
}

TEST(Tensors, UnusedOnesOfSharedLayers) {
  const Config c = config_of_size("E2B");
  const TensorNames names(c, Naming::kHfMultimodal);
  int64_t unused = 0;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    for (const TensorKind k : {TensorKind::kK, TensorKind::kV, TensorKind::kKNorm}) {
      const TensorRole r = names.role(name_of({k, i}, Naming::kHfMultimodal));
      if (r.need == TensorRole::Need::kSkipped)
        ++unused;
      else
        EXPECT_EQ(r.need, TensorRole::Need::kRequired);
    }
  }
  EXPECT_EQ(unused, 60);
}

TEST(Tensors, Names) {
  EXPECT_EQ(gguf_name({TensorKind::kQ, 3}), "blk.3.attn_q.weight");
  EXPECT_EQ(gguf_name({TensorKind::kExpertScale, 12}), "blk.12.ffn_down_exps.scale");
  EXPECT_EQ(gguf_name({TensorKind::kLayerScalar, 0}), "blk.0.layer_output_scale.weight");
  EXPECT_EQ(hf_name({TensorKind::kQ, 3}), "model.layers.3.self_attn.q_proj.weight");
  EXPECT_EQ(name_of({TensorKind::kLayerScalar, 34}, Naming::kHfMultimodal),
            "model.language_model.layers.34.layer_scalar");
  EXPECT_EQ(name_of({TensorKind::kPleTable}, Naming::kHfOld),
            "language_model.model.embed_tokens_per_layer.weight");
}

TEST(Tensors, NamesAreUniqueAndFitGguf) {
  for (const std::string& size : config_size_names()) {
    const Config c = config_of_size(size);
    std::set<std::string> hf, gguf;
    for (const TensorRef t : required_tensors(c)) {
      EXPECT_TRUE(hf.insert(hf_name(t)).second);
      EXPECT_TRUE(gguf.insert(gguf_name(t)).second);
      EXPECT_LT(gguf_name(t).size(), 64u);
    }
  }
}

TEST(Tensors, ShapesFollowTheLayer) {
  const Config c = config_of_size("12B");
  EXPECT_EQ(shape_of(c, {TensorKind::kQ, 0}), (Shape{16 * 256, 3840}));
  EXPECT_EQ(shape_of(c, {TensorKind::kQ, 5}), (Shape{16 * 512, 3840}));
  EXPECT_EQ(shape_of(c, {TensorKind::kK, 5}), (Shape{512, 3840}));
  EXPECT_EQ(shape_of(c, {TensorKind::kKNorm, 5}), (Shape{512}));
  EXPECT_EQ(shape_of(config_of_size("26B-A4B"), {TensorKind::kExpertsGateUp, 7}),
            (Shape{128, 1408, 2816}));
}

TEST(Tensors, RolesOfOtherTensors) {
  using Need = TensorRole::Need;
  const Config e2b = config_of_size("E2B"), b12 = config_of_size("12B");
  const TensorNames hf(e2b, Naming::kHfMultimodal), large(b12, Naming::kHfMultimodal);
  const TensorNames gguf(b12, Naming::kGguf);
  EXPECT_STREQ(hf.role("model.vision_tower.patch_embedder.input_proj.weight").part, "vision tower");
  EXPECT_STREQ(hf.role("model.audio_tower.output_proj.bias").part, "audio tower");
  EXPECT_STREQ(hf.role("model.embed_vision.embedding_projection.weight").part, "vision projection");
  EXPECT_STREQ(hf.role("lm_head.weight").part, "copy of the output matrix");
  EXPECT_EQ(hf.role("model.language_model.layers.35.layer_scalar").need, Need::kUnknown);
  EXPECT_EQ(hf.role("model.language_model.layers.1.mlp.bias").need, Need::kUnknown);
  EXPECT_EQ(hf.role("").need, Need::kUnknown);
  // V of a global layer where K is V must not be there.
  EXPECT_EQ(large.role("model.language_model.layers.5.self_attn.v_proj.weight").need,
            Need::kUnknown);
  EXPECT_EQ(large.role("model.language_model.layers.4.self_attn.v_proj.weight").need,
            Need::kRequired);
  EXPECT_EQ(large.role("model.language_model.embed_tokens_per_layer.weight").need, Need::kUnknown);
  EXPECT_EQ(gguf.role("rope_freqs.weight").need, Need::kSkipped);
  // Beside a config that ties the two it is a copy; config_from_gguf unties them where it is there.
  EXPECT_STREQ(gguf.role("output.weight").part, "copy of the output matrix");
  Config untied = config_of_size("E2B");
  untied.tied_embeddings = false;
  EXPECT_EQ(TensorNames(untied, Naming::kGguf).role("output.weight").need, Need::kRequired);
  EXPECT_EQ(gguf.role("vision_tower.x").need, Need::kUnknown);
}

}  // namespace
}  // namespace carat::model
