#include "model/pack.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "base/error.h"
#include "model/testing/coded_checkpoint.h"
#include "model/testing/random_model.h"
#include "model/testing/run_forward.h"

namespace carat::model {
namespace {

using kernels::Layout;

constexpr const char* kKinds[] = {"tiny", "tinykv", "tinymoe"};

std::vector<int32_t> some_tokens(int64_t n, const Config& c) {
  Rng rng(7);
  std::vector<int32_t> t;
  for (int64_t i = 0; i < n; ++i) {
    t.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(c.vocab_size))));
  }
  return t;
}

int64_t count_packed(const Weights& w) {
  int64_t n = 0;
  for (const kernels::Weight& x : w.all) n += x.layout == Layout::kTiles;
  return n;
}

TEST(PackWeights, ChangesNoBitOfAnyLogit) {
  for (const char* kind : kKinds) {
    const Config config = config_of_size(kind);
    const std::vector<int32_t> tokens = some_tokens(40, config);
    const struct {
      DType matrix, table;
    } types[] = {{DType::kQ4_0, DType::kQ6_K}, {DType::kQ8_0, DType::kQ4_0}};
    for (const auto& type : types) {
      Weights w = testing::random_weights(config, type.matrix, type.table);
      testing::RunOptions options;
      for (int32_t i = 0; i < 40; i += 3) options.wanted.push_back(i);
      const std::vector<float> mapped = testing::run_forward(w, tokens, options);
      ThreadPool pool(3);
      std::vector<std::string> notes;
      pack_weights(w, {.pool = &pool}, &notes);
      EXPECT_TRUE(notes.empty());
      EXPECT_GT(count_packed(w), config.n_layers * 4);
      EXPECT_EQ(w.at(TensorKind::kTokenEmbedding).layout, Layout::kTiles);
      for (int64_t chunk : {40, 1, 7}) {
        options.chunk = chunk;
        options.threads = static_cast<int>(chunk % 3 + 1);
        EXPECT_EQ(testing::run_forward(w, tokens, options), mapped) << kind << " " << chunk;
      }
    }
  }
}

TEST(PackWeights, ChangesNoBitOfAnyLogitOfAnyType) {
  Config config = config_of_size("tiny");
  config.n_heads = 8;  // so that every matrix has whole blocks of 256
  const std::vector<int32_t> tokens = some_tokens(11, config);
  for (const DTypeInfo& type : all_dtypes()) {
    if (!kernels::tile_format(type.dtype)) continue;
    Weights w = testing::random_weights(config, type.dtype, type.dtype);
    testing::RunOptions options;
    options.wanted = {0, 5, 10};
    const std::vector<float> mapped = testing::run_forward(w, tokens, options);
    pack_weights(w, {}, nullptr);
    EXPECT_GT(count_packed(w), config.n_layers * 4);
    options.threads = 2;
    EXPECT_EQ(testing::run_forward(w, tokens, options), mapped) << type.name;
  }
}

TEST(PackWeights, LeavesWhatIsOnlyLookedUpAndFloats) {
  Weights w = testing::random_weights(config_of_size("tiny"), DType::kBF16, DType::kQ4_0);
  pack_weights(w, {}, nullptr);
  EXPECT_EQ(w.at(TensorKind::kPleTable).layout, Layout::kRows);
  EXPECT_EQ(w.at(TensorKind::kPleTable).data, nullptr);
  EXPECT_EQ(w.at(TensorKind::kQ, 0).layout, Layout::kRows);
  EXPECT_EQ(count_packed(w), 1);
}

TEST(PackWeights, StaysWithRowsAboveTheLimit) {
  Weights w = testing::random_weights(config_of_size("tiny"), DType::kQ4_0, DType::kQ4_0);
  const int64_t bytes = packed_bytes(w);
  EXPECT_GT(bytes, 0);
  std::vector<std::string> notes;
  pack_weights(w, {.memory_limit = bytes - 1}, &notes);
  EXPECT_EQ(count_packed(w), 0);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("slower"), std::string::npos);
  pack_weights(w, {.memory_limit = bytes}, &notes);
  EXPECT_GT(count_packed(w), 0);
  EXPECT_EQ(notes.size(), 1u);
}

TEST(PackWeights, TellsItsProgress) {
  Weights w = testing::random_weights(config_of_size("tiny"), DType::kQ4_0, DType::kQ4_0);
  int64_t last = 0, all = 0;
  pack_weights(w,
               {.progress =
                    [&](int64_t done, int64_t total) {
                      EXPECT_GT(done, last);
                      last = done;
                      all = total;
                    }},
               nullptr);
  EXPECT_GT(last, 0);
  EXPECT_LE(last, all);
}

// A file that ends too early is an error, whatever thread finds it.
TEST(PackWeights, PassesOnWhatReadingThrows) {
  Weights w = testing::random_weights(config_of_size("tiny"), DType::kQ4_0, DType::kQ4_0);
  const auto file = memory_file("short.gguf", {});
  for (kernels::Weight& x : w.all) x.file = file.get();
  ThreadPool pool(2);
  EXPECT_THROW(pack_weights(w, {.pool = &pool}, nullptr), Error);
  EXPECT_EQ(count_packed(w), 0);
}

TEST(PackWeights, RefusesSizesBeyond64Bits) {
  Weights w = testing::random_weights(config_of_size("tiny"), DType::kQ4_0, DType::kQ4_0);
  w.all[static_cast<size_t>(w.at(TensorKind::kQ, 0).id)].rows = int64_t{1} << 62;
  EXPECT_THROW((void)packed_bytes(w), Error);
}

// -- codes --------------------------------------------------------------------------------------

using testing::CodedForm;
using testing::CodedSource;

Weights bind_coded(CodedSource& s) {
  const Config config = s.config;
  return testing::bind_checkpoint(config, s.checkpoint());
}

// Every value of a packed weight, read back out of its tiles.
std::vector<float> unpacked(const kernels::Weight& w) {
  if (w.layout == Layout::kRows) {
    const auto* f = reinterpret_cast<const float*>(w.data);
    return std::vector<float>(f, f + w.count * w.rows * w.cols);
  }
  std::vector<float> out(static_cast<size_t>(w.count * w.rows * w.cols));
  for (int64_t m = 0; m < w.count; ++m) {
    for (int64_t r = 0; r < w.rows; ++r) {
      const std::byte* tile = w.data + m * w.matrix_size() + r / kernels::kTileRows * w.tile_size();
      kernels::unpack_tile_row(*w.tiles(), tile, r % kernels::kTileRows, w.cols,
                               out.data() + (m * w.rows + r) * w.cols);
    }
  }
  return out;
}

TEST(PackCodes, KeepsEveryValueOfEveryForm) {
  for (const CodedForm form : testing::kCodedForms) {
    CodedSource s(form == CodedForm::kW4A16 ? "tinymoe" : "tiny", form);
    s.fill();
    Weights w = bind_coded(s);
    ThreadPool pool(3);
    std::vector<std::string> notes;
    pack_weights(w, {.pool = &pool}, &notes);
    EXPECT_TRUE(notes.empty());
    for (size_t i = 0; i < w.all.size(); ++i) {
      const kernels::Weight& weight = w.all[i];
      const std::string name = name_of(w.refs[i], s.naming);
      const bool coded = testing::coded_bits(s.config, form, w.refs[i]) > 0;
      EXPECT_EQ(!weight.scales.empty(), coded) << name;
      if (!coded) continue;
      const TensorKind kind = w.refs[i].kind;
      if (kind == TensorKind::kPleTable || kind == TensorKind::kTokenEmbedding) {
        EXPECT_EQ(weight.data, nullptr) << name;
        continue;
      }
      ASSERT_EQ(weight.layout, Layout::kTiles) << name;
      EXPECT_EQ(unpacked(weight), s.values.at(name)) << name;
    }
    EXPECT_EQ(w.kv_scales.empty(), form != CodedForm::kMobile);
  }
}

TEST(PackCodes, KeepsStaticScales) {
  CodedSource s("tiny", CodedForm::kMobile);
  s.fill();
  Weights w = bind_coded(s);
  pack_weights(w, {}, nullptr);
  EXPECT_EQ(w.at(TensorKind::kQ, 0).input_scale, 2.5f / 127);
  EXPECT_EQ(w.at(TensorKind::kDown, 5).output_scale, 3.0f / 127);
  EXPECT_EQ(w.at(TensorKind::kLmHead).input_scale, 0);
  EXPECT_EQ(w.kv_scales[2].v, 6.0f / 127);
  EXPECT_EQ(w.at(TensorKind::kPleProjection).dtype, DType::kBF16);
}

std::string pack_error(CodedForm form, const std::function<void(CodedSource&)>& edit,
                       PackOptions options = {}) {
  CodedSource s("tinykv", form);
  if (form != CodedForm::kW4A16) s = CodedSource("tiny", form);
  s.fill();
  edit(s);
  try {
    Weights w = bind_coded(s);
    pack_weights(w, options, nullptr);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

const std::string kModel = "model.language_model.";

// Scale 3 of a matrix becomes `value`.
void set_scale(CodedSource& s, const std::string& name, float value) {
  const io::TensorEntry entry = s.source->entry(name);
  std::vector<std::byte> bytes(static_cast<size_t>(entry.bytes));
  std::memcpy(bytes.data(), s.source->view(entry).data, bytes.size());
  const uint16_t half = to_bf16(value).bits;
  if (entry.dtype == DType::kF32) {
    std::memcpy(bytes.data() + 12, &value, 4);
  } else {
    std::memcpy(bytes.data() + 6, &half, 2);
  }
  s.source->remove(name);
  s.source->add(name, entry.dtype, entry.shape, std::move(bytes));
}

TEST(PackCodes, RefusesScalesThatAreNotFinite) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const char* name :
       {"layers.1.self_attn.q_proj.weight_scale", "embed_tokens_per_layer.embedding_scale",
        "embed_tokens.embedding_scale"}) {
    EXPECT_NE(
        pack_error(CodedForm::kMobile, [&](CodedSource& s) { set_scale(s, kModel + name, kNan); })
            .find("not finite"),
        std::string::npos)
        << name;
  }
  EXPECT_NE(pack_error(CodedForm::kW4A16,
                       [](CodedSource& s) {
                         set_scale(s, kModel + "layers.1.mlp.up_proj.weight_scale", kNan);
                       })
                .find("not finite"),
            std::string::npos);
}

// Below the range of binary16: exact as floats, so the matrix becomes floats and nothing is lost.
TEST(PackCodes, ExpandsAMatrixWhoseScalesDoNotFit) {
  CodedSource s("tinykv", CodedForm::kW4A16);
  s.fill();
  const std::string name = kModel + "layers.1.mlp.up_proj.weight";
  set_scale(s, name + "_scale", 0x1.8p-26f);
  std::vector<float> want = s.values.at(name);
  // Group 3 has scale 0x1.8p-26 now.
  const auto codes = quant::coded_dtype(4);
  std::vector<int8_t> group(32);
  quant::unpack_codes(codes, s.source->view(s.source->entry(name + "_packed")).data + 3 * 16, 32,
                      group.data());
  for (size_t i = 0; i < 32; ++i) want[96 + i] = static_cast<float>(group[i]) * 0x1.8p-26f;
  Weights w = bind_coded(s);
  // The floats come on top of the tiles.
  const int64_t needed = packed_bytes(w) + static_cast<int64_t>(want.size()) * 4;
  Weights refused = w;
  EXPECT_THROW(pack_weights(refused, {.memory_limit = needed - 1}, nullptr), Error);
  std::vector<std::string> notes;
  pack_weights(w, {.memory_limit = needed}, &notes);
  const kernels::Weight& up = w.at(TensorKind::kUp, 1);
  EXPECT_EQ(up.dtype, DType::kF32);
  EXPECT_TRUE(up.scales.empty());
  EXPECT_EQ(unpacked(up), want);
  EXPECT_EQ(w.at(TensorKind::kGate, 1).layout, Layout::kTiles);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("1 matrix"), std::string::npos) << notes[0];
}

TEST(PackCodes, NeedsMemoryForCodesButNotForBlocks) {
  CodedSource s("tiny", CodedForm::kMobile);
  s.fill();
  Weights w = bind_coded(s);
  const int64_t bytes = packed_bytes(w);
  EXPECT_THROW(pack_weights(w, {.memory_limit = bytes - 1}, nullptr), Error);
  pack_weights(w, {.memory_limit = bytes, .only_codes = true}, nullptr);
  EXPECT_EQ(w.at(TensorKind::kQ, 0).layout, Layout::kTiles);

  Weights blocks = testing::random_weights(config_of_size("tiny"), DType::kQ4_0, DType::kQ4_0);
  pack_weights(blocks, {.only_codes = true}, nullptr);
  EXPECT_EQ(count_packed(blocks), 0);
}

TEST(PackCodes, RefusesFormsWithoutKernels) {
  const auto groups = [](CodedSource& s, const std::string& name, int64_t n) {
    io::TensorEntry& entry = s.source->entry(kModel + name);
    entry.shape.back() = n;
  };
  EXPECT_NE(pack_error(CodedForm::kW4A16,
                       [&](CodedSource& s) { groups(s, "layers.1.mlp.up_proj.weight_scale", 4); })
                .find("one scale per row"),
            std::string::npos);
  EXPECT_NE(pack_error(CodedForm::kW4A16,
                       [&](CodedSource& s) {
                         s.source->add_f32(kModel + "layers.1.mlp.up_proj.input_scale", {1},
                                           {0.5f});
                       })
                .find("fixed steps"),
            std::string::npos);
  EXPECT_NE(
      pack_error(CodedForm::kMobile,
                 [&](CodedSource& s) { groups(s, "embed_tokens_per_layer.embedding_scale", 1); })
          .find("columns of a layer"),
      std::string::npos);
}

}  // namespace
}  // namespace carat::model
