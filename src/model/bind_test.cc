#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "model/testing/bind_source.h"

namespace carat::model {
namespace {

using testing::bind_source;
using testing::MemorySource;

std::unique_ptr<MemorySource> source_of(const Config& c, Naming naming) {
  auto s = std::make_unique<MemorySource>();
  for (const TensorRef t : required_tensors(c))
    s->add(name_of(t, naming), DType::kBF16, shape_of(c, t));
  return s;
}

// Text of the error that binding throws, or "" if it throws none.
std::string bind_error(const Config& c, std::unique_ptr<MemorySource> s) {
  try {
    (void)bind_source(c, std::move(s));
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Bind, FillsEveryWeight) {
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const Config c = config_of_size(size);
    for (const Naming naming :
         {Naming::kGguf, Naming::kHf, Naming::kHfMultimodal, Naming::kHfOld}) {
      auto s = source_of(c, naming);
      std::vector<std::string> notes;
      const Weights w = bind_source(c, std::move(s), &notes);
      EXPECT_TRUE(notes.empty());
      for (size_t i = 0; i < w.refs.size(); ++i) {
        const kernels::Weight& weight = w.at(w.refs[i].kind, w.refs[i].layer);
        EXPECT_EQ(weight.id, static_cast<int32_t>(i));
        EXPECT_EQ(weight.count * weight.rows * weight.cols, *element_count(shape_of(c, w.refs[i])));
        EXPECT_EQ(weight.data == nullptr, w.refs[i].kind == TensorKind::kPleTable);
        if (shape_of(c, w.refs[i]).size() == 1) {
          EXPECT_EQ(weight.dtype, DType::kF32);
        }
      }
    }
  }
}

TEST(Bind, AbsentTensorsAreEmpty) {
  const Config c = config_of_size("tinykv");
  auto s = source_of(c, Naming::kGguf);
  const Weights w = bind_source(c, std::move(s));
  EXPECT_TRUE(w.at(TensorKind::kPleTable).empty());
  EXPECT_TRUE(w.at(TensorKind::kV, 2).empty());
  EXPECT_FALSE(w.at(TensorKind::kV, 1).empty());
  EXPECT_TRUE(w.at(TensorKind::kRouter, 0).empty());
}

TEST(Bind, SixteenBitVectorsBecomeFloats) {
  const Config c = config_of_size("tinykv");
  auto s = std::make_unique<MemorySource>();
  for (const TensorRef t : required_tensors(c)) {
    const Shape shape = shape_of(c, t);
    const DType dtype = t.kind == TensorKind::kOutputNorm ? DType::kF16 : DType::kBF16;
    std::vector<std::byte> bytes(static_cast<size_t>(*byte_count(dtype, shape)));
    for (size_t i = 0; i + 1 < bytes.size() && shape.size() == 1; i += 2) {
      const float v = static_cast<float>(i / 2) * 0.25f;
      const uint16_t bits = dtype == DType::kF16 ? to_f16(v).bits : to_bf16(v).bits;
      std::memcpy(&bytes[i], &bits, 2);
    }
    s->add(gguf_name(t), dtype, shape, bytes);
  }
  const Weights w = bind_source(c, std::move(s));
  for (const auto ref : {TensorRef{TensorKind::kOutputNorm}, TensorRef{TensorKind::kQNorm, 1}}) {
    const auto* v = reinterpret_cast<const float*>(w.at(ref.kind, ref.layer).data);
    EXPECT_EQ(v[1], 0.25f);
    EXPECT_EQ(v[12], 3.0f);
  }
}

TEST(Bind, NotesWhatItSkips) {
  const Config c = config_of_size("tiny");
  auto s = source_of(c, Naming::kHfMultimodal);
  s->add("model.vision_tower.std_bias", DType::kBF16, {8});
  s->add("model.vision_tower.std_scale", DType::kBF16, {8});
  s->add("lm_head.weight", DType::kBF16, {c.vocab_size, c.dim});
  s->add("model.language_model.layers.3.self_attn.k_norm.weight", DType::kBF16, {32});
  std::vector<std::string> notes;
  (void)bind_source(c, std::move(s), &notes);
  EXPECT_EQ(notes, (std::vector<std::string>{"skipped K and V of layers that share them (1 tensor)",
                                             "skipped copy of the output matrix (1 tensor)",
                                             "skipped vision tower (2 tensors)"}));
}

TEST(Bind, Refusals) {
  const Config c = config_of_size("tinymoe");
  const auto error_after = [&](const std::function<void(MemorySource&)>& edit) {
    auto s = source_of(c, Naming::kGguf);
    edit(*s);
    return bind_error(c, std::move(s));
  };
  EXPECT_EQ(error_after([](MemorySource&) {}), "");
  EXPECT_NE(error_after([](MemorySource& s) {
              s.remove("blk.2.attn_q.weight");
            }).find("blk.2.attn_q.weight"),
            std::string::npos);
  EXPECT_NE(error_after([](MemorySource& s) {
              s.entry("blk.2.attn_q.weight").shape[0] += 1;
            }).find("another shape"),
            std::string::npos);
  EXPECT_NE(error_after([](MemorySource& s) {
              s.entry("blk.2.attn_q.weight").dtype = DType::kI8;
            }).find("I8"),
            std::string::npos);
  EXPECT_NE(error_after([](MemorySource& s) {
              s.entry("output_norm.weight").dtype = DType::kQ8_0;
            }).find("output_norm"),
            std::string::npos);
  EXPECT_NE(error_after([](MemorySource& s) {
              s.add("blk.0.attn_q.bias", DType::kF32, {4});
            }).find("blk.0.attn_q.bias"),
            std::string::npos);
  EXPECT_NE(error_after([](MemorySource& s) {
              s.remove("blk.1.ffn_gate_up_exps.weight");
              s.add("blk.1.ffn_gate_exps.weight", DType::kF32, {16, 64, 256});
              s.add("blk.1.ffn_up_exps.weight", DType::kF32, {16, 64, 256});
            }).find("ffn_gate_up_exps"),
            std::string::npos);
}

TEST(Bind, PerLayerTableNeedsWholeBlocksPerLayer) {
  Config c = config_of_size("tiny");
  c.ple_dim = 128;
  auto s = std::make_unique<MemorySource>();
  for (const TensorRef t : required_tensors(c)) {
    s->add(gguf_name(t), t.kind == TensorKind::kPleTable ? DType::kQ6_K : DType::kBF16,
           shape_of(c, t));
  }
  EXPECT_NE(bind_error(c, std::move(s)).find("128 columns"), std::string::npos);
}

TEST(Rope, FrequenciesOfBothKinds) {
  const Config c = config_of_size("12B");
  const kernels::Rope global = make_rope(c, true), local = make_rope(c, false);
  ASSERT_EQ(global.inverse_frequency.size(), 256u);
  ASSERT_EQ(local.inverse_frequency.size(), 128u);
  EXPECT_EQ(global.inverse_frequency[0], 1.0f);
  EXPECT_FLOAT_EQ(global.inverse_frequency[63], static_cast<float>(std::pow(1e6, -2.0 * 63 / 512)));
  EXPECT_EQ(global.inverse_frequency[64], 0.0f);
  EXPECT_FLOAT_EQ(local.inverse_frequency[127],
                  static_cast<float>(std::pow(1e4, -2.0 * 127 / 256)));
}

}  // namespace
}  // namespace carat::model
