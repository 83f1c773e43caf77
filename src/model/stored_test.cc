#include "model/stored.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/error.h"
#include "model/testing/coded_checkpoint.h"
#include "quant/scheme.h"

namespace carat::model {
namespace {

using testing::CodedForm;
using testing::CodedSource;
using testing::MemorySource;
using Need = TensorRole::Need;

constexpr Naming kHfNamings[] = {Naming::kHf, Naming::kHfMultimodal, Naming::kHfOld};

std::vector<float> scales_of(const io::TensorSource& source, const io::TensorEntry& entry) {
  std::vector<float> out(static_cast<size_t>(*element_count(entry.shape)));
  quant::decode_row(entry.dtype, source.view(entry).data, out.data(),
                    static_cast<int64_t>(out.size()));
  return out;
}

std::vector<float> decoded(const io::TensorSource& source, const StoredTensor& t) {
  const int64_t n = *element_count(t.shape);
  std::vector<float> out(static_cast<size_t>(n));
  const std::byte* bytes = source.view(*t.values).data;
  if (!t.is_coded()) {
    quant::decode_row(t.dtype, bytes, out.data(), n);
  } else {
    quant::decode_coded_row(t.dtype, bytes, scales_of(source, *t.scales).data(), t.scale_columns, n,
                            out.data());
  }
  return out;
}

TEST(StoredTensors, FindsEveryParameterOfEveryForm) {
  for (const CodedForm form : testing::kCodedForms) {
    for (const Naming naming : kHfNamings) {
      CodedSource s(form == CodedForm::kW4A16 ? "tinymoe" : "tiny", form, naming);
      s.fill();
      const Config config = s.config;
      const auto values = s.values;
      const io::Checkpoint c = s.checkpoint();
      const StoredTensors stored(c, config);
      EXPECT_EQ(stored.naming(), naming);
      EXPECT_EQ(stored.coding() == Coding::kMobile, form == CodedForm::kMobile);
      for (const TensorRef ref : required_tensors(config)) {
        const std::string name = name_of(ref, naming);
        const auto t = stored.find(ref);
        ASSERT_TRUE(t.has_value()) << name;
        EXPECT_EQ(t->shape, shape_of(config, ref)) << name;
        const int bits = testing::coded_bits(config, form, ref);
        EXPECT_EQ(t->dtype, bits == 0 ? DType::kBF16 : quant::coded_dtype(bits)) << name;
        EXPECT_EQ(decoded(*c.tensors, *t), values.at(name)) << name;
        const auto again = stored.find(name);
        ASSERT_TRUE(again.has_value());
        EXPECT_EQ(again->values, t->values);
      }
      EXPECT_FALSE(stored.find("model.no.such.weight").has_value());
    }
  }
}

TEST(StoredTensors, FindsStaticScales) {
  for (const CodedForm form : {CodedForm::kMobile, CodedForm::kMobileCt}) {
    CodedSource s("tiny", form);
    s.fill();
    const Config config = s.config;
    const io::Checkpoint c = s.checkpoint();
    const StoredTensors stored(c, config);
    const auto q = stored.find({TensorKind::kQ, 1});
    EXPECT_EQ(q->input_scale, 2.5f / 127);
    EXPECT_EQ(q->output_scale, 3.0f / 127);
    EXPECT_EQ(stored.find({TensorKind::kLmHead, -1})->input_scale, 0);
    EXPECT_EQ(stored.find({TensorKind::kPleTable, -1})->scale_columns, config.ple_dim);
    EXPECT_EQ(stored.find({TensorKind::kTokenEmbedding, -1})->scale_columns, config.dim);
    const bool has_cache = form == CodedForm::kMobile;
    EXPECT_EQ(stored.kv_scales(0).k, has_cache ? 5.0f / 127 : 0);
    EXPECT_EQ(stored.kv_scales(0).v, has_cache ? 6.0f / 127 : 0);
  }
}

TEST(StoredTensors, EveryPartBelongsToItsParameter) {
  for (const CodedForm form : testing::kCodedForms) {
    CodedSource s(form == CodedForm::kW4A16 ? "tinymoe" : "tiny", form);
    s.fill();
    s.source->add("model.vision_tower.a.linear.weight_scale", DType::kF32, {4, 1});
    const Config config = s.config;
    const io::Checkpoint c = s.checkpoint();
    const StoredTensors stored(c, config);
    for (const io::TensorEntry& entry : c.tensors->entries()) {
      const TensorRole role = stored.role(entry.name);
      EXPECT_NE(role.need, Need::kUnknown) << entry.name;
      if (role.need == Need::kRequired) {
        EXPECT_TRUE(stored.find(role.ref).has_value()) << entry.name;
      }
    }
    EXPECT_STREQ(stored.role("model.vision_tower.a.linear.weight_scale").part, "vision tower");
    EXPECT_EQ(stored.role("model.language_model.layers.0.self_attn.o_proj.bias").need,
              Need::kUnknown);
    if (form == CodedForm::kW4A16) continue;
    const std::string sharer = "model.language_model.layers.4.self_attn.";
    EXPECT_EQ(stored.role(sharer + "v_proj.weight_scale").need, Need::kSkipped);
    EXPECT_EQ(stored.role("lm_head.weight_scale").ref.kind, TensorKind::kLmHead);
    if (form != CodedForm::kMobile) continue;
    EXPECT_EQ(stored.role(sharer + "k_cache_scale").need, Need::kSkipped);
    EXPECT_EQ(stored.role("model.language_model.layers.1.self_attn.v_cache_scale").ref.layer, 1);
  }
}

// Towers hold codes too; how many bits follows from the widths in the config.
TEST(StoredTensors, FindsCodesOfTowersByName) {
  CodedSource s("tiny", CodedForm::kMobile);
  s.fill();
  s.json["audio_config"] = {{"hidden_size", 64}};
  s.json["vision_config"] = {{"hidden_size", 48}, {"intermediate_size", 96}};
  const auto add = [&](const std::string& module, DType dtype, int64_t rows, int64_t columns) {
    s.source->add(module + ".weight", dtype, {rows, columns});
    s.source->add(module + ".weight_scale", DType::kF32, {rows, 1});
    s.source->add_f32(module + ".input_activation_scale", {}, {0.5f});
    s.source->add_f32(module + ".output_activation_scale", {}, {0});
  };
  const std::string audio = "model.audio_tower.layers.0.";
  add(audio + "feed_forward1.ffw_layer_1.linear", DType::kU8, 256, 16);
  add(audio + "feed_forward1.ffw_layer_2.linear", DType::kU8, 64, 64);
  add(audio + "lconv1d.linear_start.linear", DType::kU8, 128, 32);
  add("model.vision_tower.encoder.layers.0.mlp.down_proj.linear", DType::kI8, 48, 96);
  const Config config = s.config;
  const io::Checkpoint c = s.checkpoint();
  const StoredTensors stored(c, config);
  const struct {
    std::string name;
    DType dtype;
    Shape shape;
  } cases[] = {
      {audio + "feed_forward1.ffw_layer_1.linear", DType::kC2, {256, 64}},
      {audio + "feed_forward1.ffw_layer_2.linear", DType::kC2, {64, 256}},
      {audio + "lconv1d.linear_start.linear", DType::kC4, {128, 64}},
      {"model.vision_tower.encoder.layers.0.mlp.down_proj.linear", DType::kC8, {48, 96}},
  };
  for (const auto& want : cases) {
    const auto t = stored.find(want.name + ".weight");
    ASSERT_TRUE(t.has_value()) << want.name;
    EXPECT_EQ(t->dtype, want.dtype) << want.name;
    EXPECT_EQ(t->shape, want.shape) << want.name;
    EXPECT_EQ(t->input_scale, 0.5f);
  }
}

// -- refusals -----------------------------------------------------------------------------------

std::string error_after(CodedForm form, const std::function<void(CodedSource&)>& edit) {
  CodedSource s(form == CodedForm::kW4A16 ? "tinymoe" : "tiny", form);
  s.fill();
  edit(s);
  const Config config = s.config;
  const io::Checkpoint c = s.checkpoint();
  try {
    const StoredTensors stored(c, config);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

void set_i64(CodedSource& s, const std::string& name, const std::vector<int64_t>& values) {
  std::vector<std::byte> bytes(values.size() * 8);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  s.source->remove(name);
  s.source->add(name, DType::kI64, {static_cast<int64_t>(values.size())}, std::move(bytes));
}

void set_scalar(CodedSource& s, const std::string& name, float value) {
  s.source->remove(name);
  s.source->add_f32(name, {}, {value});
}

const std::string kQ1 = "model.language_model.layers.1.self_attn.q_proj.";
const std::string kTable = "model.language_model.embed_tokens.";

struct Refusal {
  const char* says;
  std::string about;  // the tensor that the error names
  std::function<void(CodedSource&)> edit;
};

void expect_refusals(CodedForm form, const std::vector<Refusal>& refusals) {
  EXPECT_EQ(error_after(form, [](CodedSource&) {}), "");
  for (size_t i = 0; i < refusals.size(); ++i) {
    const std::string text = error_after(form, refusals[i].edit);
    EXPECT_NE(text.find(refusals[i].says), std::string::npos) << i << ": " << text;
    EXPECT_NE(text.find(refusals[i].about), std::string::npos) << i << ": " << text;
    EXPECT_NE(text.find("memory"), std::string::npos) << i << ": " << text;
  }
}

TEST(StoredTensors, RefusesBrokenMobileModules) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto entry = [](CodedSource& s, const std::string& n) -> io::TensorEntry& {
    return s.source->entry(n);
  };
  expect_refusals(
      CodedForm::kMobile,
      {
          {"lacks a part", kQ1 + "weight_scale",
           [](CodedSource& s) { s.source->remove(kQ1 + "weight_scale"); }},
          {"lacks a part", kQ1 + "input_activation_scale",
           [](CodedSource& s) { s.source->remove(kQ1 + "input_activation_scale"); }},
          {"lacks a part", kTable + "embedding_scale",
           [](CodedSource& s) { s.source->remove(kTable + "embedding_scale"); }},
          {"without the codes", kQ1 + "weight_scale",
           [](CodedSource& s) { s.source->remove(kQ1 + "weight"); }},
          {"lacks a part", "layers.2.self_attn.v_cache_scale",
           [](CodedSource& s) {
             s.source->remove("model.language_model.layers.2.self_attn.v_cache_scale");
           }},
          {"fit together", kQ1 + "weight",  // 3 bits a code, nearly
           [&](CodedSource& s) { entry(s, kQ1 + "weight").shape[1] = 96; }},
          {"fit together", kQ1 + "weight",
           [&](CodedSource& s) { entry(s, kQ1 + "weight").shape[1] = 127; }},
          {"fit together", kQ1 + "weight",
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight").shape = {int64_t{1} << 62, int64_t{1} << 62};
           }},
          {"fit together", kQ1 + "weight",
           [&](CodedSource& s) { entry(s, kQ1 + "weight").shape = {128}; }},
          {"fit together", kQ1 + "weight_scale",
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight_scale").shape = {127, 1};
           }},
          {"fit together", kQ1 + "weight_scale",
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight_scale").shape = {128, 3};
           }},
          {"fit together", kQ1 + "weight_scale",
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight_scale").shape = {128, 0};
           }},
          {"fit together", kQ1 + "weight_scale",  // a scale for half a byte
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight_scale").shape = {128, 256};
           }},
          {"fit together", kQ1 + "weight_scale",
           [&](CodedSource& s) { entry(s, kQ1 + "weight_scale").shape = {}; }},
          {"another type", kQ1 + "weight_scale",
           [&](CodedSource& s) { entry(s, kQ1 + "weight_scale").dtype = DType::kI32; }},
          {"another type", kTable + "embedding_quantized",
           [&](CodedSource& s) { entry(s, kTable + "embedding_quantized").dtype = DType::kF16; }},
          {"stored twice", kTable + "embedding_quantized",
           [](CodedSource& s) {
             s.source->add(kTable + "weight", DType::kBF16, {s.config.vocab_size, s.config.dim});
           }},
          {"scale of activations", kQ1 + "input_activation_scale",
           [](CodedSource& s) { set_scalar(s, kQ1 + "input_activation_scale", -0.5f); }},
          {"scale of activations", kQ1 + "output_activation_scale",
           [](CodedSource& s) { set_scalar(s, kQ1 + "output_activation_scale", kNan); }},
          {"scale of activations", "layers.0.self_attn.k_cache_scale",
           [](CodedSource& s) {
             set_scalar(s, "model.language_model.layers.0.self_attn.k_cache_scale", kInf);
           }},
          {"one number", kQ1 + "input_activation_scale",
           [&](CodedSource& s) { entry(s, kQ1 + "input_activation_scale").shape = {2}; }},
      });
}

TEST(StoredTensors, RefusesBrokenWords) {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  const auto entry = [](CodedSource& s, const std::string& n) -> io::TensorEntry& {
    return s.source->entry(n);
  };
  const std::string experts = "model.language_model.layers.0.experts.gate_up_proj";
  expect_refusals(
      CodedForm::kW4A16,
      {
          {"lacks a part", kQ1 + "weight_shape",
           [](CodedSource& s) { s.source->remove(kQ1 + "weight_shape"); }},
          {"lacks a part", kQ1 + "weight_scale",
           [](CodedSource& s) { s.source->remove(kQ1 + "weight_scale"); }},
          {"without the codes", kQ1 + "weight_s",
           [](CodedSource& s) { s.source->remove(kQ1 + "weight_packed"); }},
          {"lacks a part", experts + "_scale",
           [&](CodedSource& s) { s.source->remove(experts + "_scale"); }},
          {"fit together", kQ1 + "weight_shape",
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {127, 256});
           }},
          {"fit together", kQ1 + "weight_shape",
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {128, -256});
           }},
          {"fit together", kQ1 + "weight_shape",
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {128, kHuge});
           }},
          {"whole words", kQ1 + "weight_packed",  // fits ceil(255 / 8) words
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {128, 255});
           }},
          {"whole words", kQ1 + "weight_packed",  // codes of 8 bits
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {128, 128});
           }},
          {"fit together", kQ1 + "weight_shape",
           [](CodedSource& s) {
             set_i64(s, kQ1 + "weight_shape", {1, 128, 256});
           }},
          {"another type", kQ1 + "weight_shape",
           [&](CodedSource& s) { entry(s, kQ1 + "weight_shape").dtype = DType::kI32; }},
          {"another type", kQ1 + "weight_packed",
           [&](CodedSource& s) { entry(s, kQ1 + "weight_packed").dtype = DType::kU8; }},
          {"fit together", kQ1 + "weight_packed",
           [&](CodedSource& s) { entry(s, kQ1 + "weight_packed").shape = {32}; }},
          {"fit together", kQ1 + "weight_scale",
           [&](CodedSource& s) {
             entry(s, kQ1 + "weight_scale").shape = {128, 7};
           }},
          {"fit together", experts + "_scale",
           [&](CodedSource& s) {
             entry(s, experts + "_scale").shape = {128, 8};
           }},
          {"stored twice", kQ1 + "weight_packed",
           [](CodedSource& s) {
             s.source->add(kQ1 + "weight", DType::kBF16, {128, 256});
           }},
          {"this kind of quantized", kQ1 + "weight_zero_point",
           [](CodedSource& s) {
             s.source->add(kQ1 + "weight_zero_point", DType::kI32, {16, 8});
           }},
          {"this kind of quantized", kQ1 + "weight_g_idx",
           [](CodedSource& s) { s.source->add(kQ1 + "weight_g_idx", DType::kI32, {256}); }},
      });
}

TEST(StoredTensors, RefusesACheckpointWithoutEmbedding) {
  const std::string text = error_after(
      CodedForm::kMobile, [](CodedSource& s) { s.source->remove(kTable + "embedding_quantized"); });
  EXPECT_NE(text.find("embed_tokens.weight"), std::string::npos) << text;
}

// -- config.json --------------------------------------------------------------------------------

TEST(CodingOf, KnowsTheMethods) {
  EXPECT_EQ(coding_of(Json()), Coding::kNone);
  EXPECT_EQ(coding_of(Json::object()), Coding::kNone);
  EXPECT_EQ(coding_of(Json::parse(R"({"quantization_config": null})")), Coding::kNone);
  for (const CodedForm form : testing::kCodedForms) {
    Json j;
    j["quantization_config"] = CodedSource("tiny", form).quantization();
    const Coding want = form == CodedForm::kMobile ? Coding::kMobile : Coding::kCompressedTensors;
    EXPECT_EQ(coding_of(j), want);
    Json nested;
    nested["text_config"] = j;
    EXPECT_EQ(coding_of(nested), want);
  }
}

TEST(CodingOf, RefusesWhatItDoesNotKnowByItsKey) {
  const auto error_of = [](CodedForm form, const std::function<void(Json&)>& edit) -> std::string {
    Json j;
    j["quantization_config"] = CodedSource("tiny", form).quantization();
    edit(j["quantization_config"]);
    try {
      (void)coding_of(j);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  const auto weights = [](Json& q) -> Json& { return q["config_groups"]["group_0"]["weights"]; };
  const struct {
    const char* key;
    std::function<void(Json&)> edit;
  } cases[] = {
      {"quant_method", [](Json& q) { q["quant_method"] = "gptq"; }},
      {"quant_method", [](Json& q) { q.erase("quant_method"); }},
      {"quant_method", [](Json& q) { q["quant_method"] = 4; }},
      {"an object", [](Json& q) { q = 4; }},
      {"format", [](Json& q) { q["format"] = "marlin-24"; }},
      {"quantization_status", [](Json& q) { q["quantization_status"] = "frozen"; }},
      {"kv_cache_scheme",
       [](Json& q) {
         q["kv_cache_scheme"] = {{"num_bits", 8}};
       }},
      {"transform_config",
       [](Json& q) {
         q["transform_config"] = {{"hadamard", 1}};
       }},
      {"sparsity_config",
       [](Json& q) {
         q["sparsity_config"] = {{"format", "2:4"}};
       }},
      {"config_groups", [](Json& q) { q.erase("config_groups"); }},
      {"config_groups", [](Json& q) { q["config_groups"] = Json::array(); }},
      {"config_groups.group_0", [](Json& q) { q["config_groups"]["group_0"] = 1; }},
      {"group_0.weights", [](Json& q) { q["config_groups"]["group_0"]["weights"] = nullptr; }},
      {"group_0.format", [](Json& q) { q["config_groups"]["group_0"]["format"] = "float"; }},
      {"weights.num_bits", [&](Json& q) { weights(q)["num_bits"] = 3; }},
      {"weights.num_bits", [&](Json& q) { weights(q)["num_bits"] = "4"; }},
      {"weights.type", [&](Json& q) { weights(q)["type"] = "float"; }},
      {"weights.symmetric", [&](Json& q) { weights(q)["symmetric"] = false; }},
      {"weights.strategy", [&](Json& q) { weights(q)["strategy"] = "block"; }},
      {"group_size", [&](Json& q) { weights(q)["group_size"] = -1; }},
      {"weights.dynamic", [&](Json& q) { weights(q)["dynamic"] = true; }},
      {"weights.actorder", [&](Json& q) { weights(q)["actorder"] = "group"; }},
      {"input_activations.dynamic",
       [](Json& q) {
         q["config_groups"]["group_0"]["input_activations"] = {{"num_bits", 8}, {"dynamic", true}};
       }},
      {"input_activations.num_bits",
       [](Json& q) {
         q["config_groups"]["group_0"]["input_activations"] = {{"num_bits", 4}};
       }},
  };
  for (const auto& c : cases) {
    const std::string text = error_of(CodedForm::kW4A16, c.edit);
    EXPECT_NE(text.find(c.key), std::string::npos) << c.key << ": " << text;
  }
  EXPECT_NE(error_of(CodedForm::kMobile, [](Json& q) { q["num_bits"] = 5; }).find("num_bits"),
            std::string::npos);
  EXPECT_NE(error_of(CodedForm::kMobile,
                     [](Json& q) { q["module_quant_configs"]["^lm_head$"]["num_bits"] = 0; })
                .find("lm_head"),
            std::string::npos);
}

}  // namespace
}  // namespace carat::model
