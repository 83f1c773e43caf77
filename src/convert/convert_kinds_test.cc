// Every kind of checkpoint into every other, on small models of all architectures.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "convert/coded_layout.h"
#include "convert/convert.h"
#include "convert/synth.h"
#include "convert/testing/checkpoints.h"
#include "convert/transcode.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"
#include "model/load.h"
#include "model/stored.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

using model::TensorKind;
using model::TensorRef;
using testing::HfCheckpoint;
using testing::TemporaryFolder;
using testing::Training;

// An open checkpoint and where its parameters are.
struct Opened {
  io::Checkpoint checkpoint;
  model::Config config;
  model::StoredTensors stored;

  explicit Opened(const std::string& path)
      : checkpoint(io::open_checkpoint(path)),
        config(model::config_of(checkpoint)),
        stored(checkpoint, config) {}

  std::vector<float> values(TensorRef ref) const {
    const auto t = stored.find(ref);
    if (!t) return {};
    const SourceTensor source = source_tensor(*checkpoint.tensors, *t);
    std::vector<float> values(static_cast<size_t>(source.elements));
    std::vector<std::byte> raw;
    Transcoder::decode(source, 0, source.elements, raw, values.data());
    return values;
  }
};

// Weights of a's parameters that b has otherwise; both rounded to bfloat16 if asked.
int64_t differences(const Opened& a, const Opened& b, bool as_bf16 = false) {
  int64_t n = 0;
  for (const TensorRef ref : model::required_tensors(a.config)) {
    const std::vector<float> x = a.values(ref), y = b.values(ref);
    EXPECT_EQ(x.size(), y.size()) << model::hf_name(ref);
    if (x.size() != y.size()) return -1;
    for (size_t i = 0; i < x.size(); ++i) {
      n += as_bf16 ? to_float(to_bf16(x[i])) != to_float(to_bf16(y[i])) : x[i] != y[i];
    }
  }
  return n;
}

std::string synth(const TemporaryFolder& folder, const char* size, const char* type) {
  SynthOptions options;
  options.size = size;
  options.type = type;
  options.gguf = false;
  options.target = folder / type;
  (void)write_synthetic(options);
  return options.target;
}

ConvertReport run(const std::string& from, const std::string& to, Format format,
                  const std::string& accept = "", int threads = 2) {
  ConvertOptions o;
  o.source = from;
  o.target = to;
  o.format = format;
  o.threads = threads;
  o.accepted = Losses::from_text(accept);
  return convert(o);
}

// The conversion is refused with a hint at the flag, and leaves nothing.
void expect_refused(const std::string& from, const std::string& to, Format format,
                    const std::string& flag, const std::string& accept = "") {
  try {
    (void)run(from, to, format, accept);
    ADD_FAILURE() << name_of(format) << " was not refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("--accept " + flag), std::string::npos) << e.what();
  }
  EXPECT_FALSE(std::filesystem::exists(to));
}

// Rounding to Q4_0 is no leave to lose something in another format.
TEST(Kinds, RoundingToQ4_0AcceptsNothingElsewhere) {
  TemporaryFolder folder("round_elsewhere");
  HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tinykv");
  c.rule = Training::kNone;
  write_hf(c);
  ConvertOptions o;
  o.source = c.folder;
  o.target = folder / "out";
  o.format = Format::kW4A16;
  o.force_q4_0 = true;
  try {
    (void)convert(o);
    ADD_FAILURE() << "was not refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("--accept rounded-weights"), std::string::npos)
        << e.what();
  }
  EXPECT_FALSE(std::filesystem::exists(o.target));
}

HfCheckpoint lattice(const std::string& folder, const char* size, Training rule) {
  HfCheckpoint c;
  c.folder = folder;
  c.config = model::config_of_size(size);
  c.rule = rule;
  return c;
}

constexpr const char* kSizes[] = {"tiny", "tinykv", "tinymoe"};
constexpr const char* kEverything =
    "rounded-weights,rounded-scales,dropped-activation-scales,dropped-cache-scales";

TEST(ConvertKinds, LatticesOfBf16ScalesBecomeW4A16WithoutLoss) {
  for (const char* size : kSizes) {
    TemporaryFolder folder("w4a16");
    write_hf(lattice(folder / "hf", size, Training::kAbsmax7));
    const ConvertReport r = run(folder / "hf", folder / "ct", Format::kW4A16);
    EXPECT_EQ(r.weights_bit_exact, r.weights) << size;
    EXPECT_TRUE(r.losses.empty());
    const Opened hf(folder / "hf"), ct(folder / "ct");
    EXPECT_EQ(ct.config, hf.config);
    EXPECT_EQ(ct.stored.coding(), model::Coding::kCompressedTensors);
    EXPECT_EQ(differences(hf, ct, true), 0) << size;
    const auto up = ct.stored.find(TensorRef{TensorKind::kUp, 0});
    ASSERT_TRUE(up && up->is_coded());
    EXPECT_EQ(up->dtype, DType::kC4);
    EXPECT_EQ(up->scale_columns, 32);
    EXPECT_FALSE(ct.stored.find(TensorRef{TensorKind::kTokenEmbedding, -1})->is_coded());
    // And back, to the same lattice in every format.
    (void)run(folder / "ct", folder / "back", Format::kHfBf16);
    EXPECT_EQ(differences(hf, Opened(folder / "back"), true), 0) << size;
    const ConvertReport q = run(folder / "ct", folder / "q.gguf", Format::kGgufQ4_0);
    EXPECT_EQ(q.matrices_kept, 0) << size;
    EXPECT_EQ(differences(ct, Opened(folder / "q.gguf"), true), 0) << size;
    (void)run(folder / "q.gguf", folder / "again", Format::kW4A16);
    EXPECT_EQ(differences(ct, Opened(folder / "again"), true), 0) << size;
    EXPECT_EQ(model::load_model(folder / "ct").config(), hf.config);
  }
}

TEST(ConvertKinds, ScalesThatBf16CannotHoldAreRoundedOnlyIfAccepted) {
  TemporaryFolder folder("scales");
  write_hf(lattice(folder / "hf", "tiny", Training::kSigned8));
  expect_refused(folder / "hf", folder / "ct", Format::kW4A16, "rounded-scales");
  const ConvertReport r = run(folder / "hf", folder / "ct", Format::kW4A16, "rounded-scales");
  EXPECT_LT(r.weights_bit_exact, r.weights);
  EXPECT_EQ(r.losses, Losses::from_text("rounded-scales"));
  EXPECT_GT(r.error.relative_rms(), 0.0002);
  EXPECT_LT(r.error.relative_rms(), 0.004);
  EXPECT_LT(r.error.worst_relative, 0.006);
  const Opened hf(folder / "hf"), ct(folder / "ct");
  EXPECT_EQ(r.weights - r.weights_bit_exact, differences(hf, ct, true));
  int64_t groups = 0;
  for (const TensorReport& t : r.tensors) {
    EXPECT_EQ(t.groups, t.groups_exact + t.groups_rounded_scale) << t.name;
    groups += t.groups;
  }
  EXPECT_GT(groups, 0);
  const Json j = to_json(r);
  EXPECT_EQ(j["losses"], "rounded-scales");
  EXPECT_GT(j["error"]["relative_rms"].get<double>(), 0);
}

TEST(ConvertKinds, WeightsOffTheLatticeAreRoundedOnlyIfAccepted) {
  TemporaryFolder folder("fit");
  write_hf(lattice(folder / "hf", "tinymoe", Training::kNone));
  expect_refused(folder / "hf", folder / "ct", Format::kW4A16, "rounded-weights", "rounded-scales");
  const ConvertReport r = run(folder / "hf", folder / "ct", Format::kW4A16, kEverything);
  EXPECT_GT(r.error.relative_rms(), 0.03);
  EXPECT_LT(r.error.relative_rms(), 0.12);
  // Never worse than Q4_0 by more than what the narrower scale costs.
  (void)run(folder / "hf", folder / "q.gguf", Format::kGguf);
  const Opened hf(folder / "hf"), ct(folder / "ct"), q(folder / "q.gguf");
  for (const TensorRef ref :
       {TensorRef{TensorKind::kQ, 0}, TensorRef{TensorKind::kExpertsDown, 1}}) {
    const std::vector<float> w = hf.values(ref), a = ct.values(ref), b = q.values(ref);
    const double of_ct =
        measure_error(w.data(), a.data(), static_cast<int64_t>(w.size())).relative_rms();
    const double of_q =
        measure_error(w.data(), b.data(), static_cast<int64_t>(w.size())).relative_rms();
    EXPECT_LT(of_ct, 1.01 * of_q);
  }
}

TEST(ConvertKinds, W4A16IsCopiedAsItIs) {
  for (const char* size : kSizes) {
    TemporaryFolder folder("copy4");
    const std::string from = synth(folder, size, "w4a16-ct");
    const ConvertReport r = run(from, folder / "ct", Format::kW4A16);
    EXPECT_EQ(r.weights_bit_exact, r.weights);
    EXPECT_EQ(differences(Opened(from), Opened(folder / "ct")), 0);
    const Opened a(from);
    (void)run(from, folder / "q.gguf", Format::kGgufQ4_0, "", 1);
    const Opened gguf(folder / "q.gguf");
    EXPECT_EQ(gguf.stored.find(TensorRef{TensorKind::kDown, 1})->dtype, DType::kQ4_0);
    EXPECT_EQ(a.values({TensorKind::kDown, 1}), gguf.values({TensorKind::kDown, 1}));
  }
}

TEST(ConvertKinds, MobileKindsIntoEachOther) {
  TemporaryFolder folder("mobile");
  const std::string from = synth(folder, "tiny", "mobile-transformers");
  const Opened a(from);
  // A copy.
  (void)run(from, folder / "same", Format::kMobileTransformers);
  EXPECT_EQ(differences(a, Opened(folder / "same")), 0);
  // Scales are rounded, and those of the cache have no place.
  expect_refused(from, folder / "ct", Format::kMobileCt, "rounded-scales", "dropped-cache-scales");
  expect_refused(from, folder / "ct", Format::kMobileCt, "dropped-cache-scales", "rounded-scales");
  const ConvertReport r =
      run(from, folder / "ct", Format::kMobileCt, "rounded-scales,dropped-cache-scales");
  EXPECT_LT(r.error.worst_relative, 0.004);
  const Opened ct(folder / "ct");
  EXPECT_EQ(ct.config, a.config);
  for (const TensorRef ref : model::required_tensors(a.config)) {
    const auto x = a.stored.find(ref), y = ct.stored.find(ref);
    ASSERT_TRUE(x && y);
    EXPECT_EQ(x->dtype, y->dtype) << model::hf_name(ref);
    EXPECT_EQ(x->scale_columns, y->scale_columns);
    EXPECT_EQ(x->input_scale, y->input_scale);
    EXPECT_EQ(x->output_scale, y->output_scale);
  }
  // Back without loss.
  const ConvertReport back = run(folder / "ct", folder / "back", Format::kMobileTransformers);
  EXPECT_EQ(back.weights_bit_exact, back.weights);
  EXPECT_EQ(differences(ct, Opened(folder / "back")), 0);
  // K and V of layers that share them stay.
  const TensorRef k{TensorKind::kK, a.config.n_layers - 1};
  EXPECT_EQ(a.values(k), Opened(folder / "same").values(k));
  EXPECT_FALSE(a.values(k).empty());
  for (const char* name : {"same", "ct", "back"}) {
    const model::Model m = model::load_model(folder / name);
    EXPECT_FALSE(m.config().tied_embeddings);
  }
}

TEST(ConvertKinds, CacheScalesAreCarried) {
  TemporaryFolder folder("cache");
  const std::string from = synth(folder, "tiny", "mobile-transformers");
  (void)run(from, folder / "same", Format::kMobileTransformers);
  const Opened a(from), b(folder / "same");
  for (int64_t i = 0; i < a.config.n_layers; ++i) {
    EXPECT_GT(a.stored.kv_scales(i).k, 0);
    EXPECT_EQ(a.stored.kv_scales(i).k, b.stored.kv_scales(i).k);
    EXPECT_EQ(a.stored.kv_scales(i).v, b.stored.kv_scales(i).v);
  }
}

TEST(ConvertKinds, MobileIntoFloatsDropsTheRoundingOfActivations) {
  TemporaryFolder folder("float");
  const std::string from = synth(folder, "tiny", "mobile-transformers");
  expect_refused(from, folder / "hf", Format::kHfBf16, "dropped-activation-scales");
  // A scale of 24 bits is not found again in bfloat16 values.
  expect_refused(from, folder / "hf", Format::kHfBf16, "rounded-weights",
                 "dropped-activation-scales");
  const ConvertReport r =
      run(from, folder / "hf", Format::kHfBf16, "dropped-activation-scales,rounded-weights");
  EXPECT_EQ(r.losses,
            Losses::from_text("dropped-activation-scales,dropped-cache-scales,rounded-weights"));
  const Opened a(from), hf(folder / "hf");
  EXPECT_EQ(hf.stored.coding(), model::Coding::kNone);
  EXPECT_FALSE(hf.config.tied_embeddings);
  EXPECT_EQ(differences(a, hf, true), 0);
  (void)run(from, folder / "m.gguf", Format::kGgufBf16,
            "dropped-activation-scales,rounded-weights");
  EXPECT_EQ(differences(a, Opened(folder / "m.gguf"), true), 0);
  ConvertOptions o;
  o.source = from;
  o.target = folder / "f32.gguf";
  o.format = Format::kGguf;
  o.recipe.base = "f32";
  o.accepted = Losses::from_text("dropped-activation-scales");
  (void)convert(o);
  EXPECT_EQ(differences(a, Opened(folder / "f32.gguf")), 0);
}

TEST(ConvertKinds, ARecipeDoesNotTurnDamagedWeightsIntoZeros) {
  TemporaryFolder folder("recipe_nan");
  HfCheckpoint c = lattice(folder / "hf", "tiny", Training::kSigned8);
  c.change = [](model::TensorRef ref, std::vector<float>& w) {
    if (ref.kind == model::TensorKind::kQ && ref.layer == 0) w[40] = 1e9f;
  };
  write_hf(c);
  ConvertOptions o;
  o.source = folder / "hf";
  o.target = folder / "out.gguf";
  o.format = Format::kGguf;
  o.recipe.base = "q4_0";
  EXPECT_THROW((void)convert(o), Error);
  EXPECT_FALSE(std::filesystem::exists(o.target));
}

TEST(ConvertKinds, AnythingIntoMobileIsFitted) {
  TemporaryFolder folder("to_mobile");
  write_hf(lattice(folder / "hf", "tiny", Training::kSigned8));
  (void)run(folder / "hf", folder / "q.gguf", Format::kGgufQ4_0);
  for (const Format format : {Format::kMobileTransformers, Format::kMobileCt}) {
    expect_refused(folder / "hf", folder / "m", format, "rounded-weights");
    const ConvertReport r = run(folder / "hf", folder / "m", format, "rounded-weights");
    EXPECT_LT(r.error.relative_rms(), 0.45);  // two bits
    for (const TensorReport& t : r.tensors) {
      if (t.to == DType::kC8) {
        EXPECT_LT(t.error.relative_rms(), 0.01) << t.name;
      }
      if (t.to == DType::kC4) {
        EXPECT_LT(t.error.relative_rms(), 0.15) << t.name;
      }
    }
    const Opened m(folder / "m");
    EXPECT_FALSE(m.config.tied_embeddings);
    EXPECT_EQ(m.values({TensorKind::kLmHead, -1}), m.values({TensorKind::kTokenEmbedding, -1}));
    EXPECT_EQ(m.stored.find(TensorRef{TensorKind::kQ, 0})->input_scale, 0);
    (void)model::load_model(folder / "m");
    (void)run(folder / "q.gguf", folder / "m2", format, "rounded-weights");
    (void)model::load_model(folder / "m2");
    std::filesystem::remove_all(folder / "m");
    std::filesystem::remove_all(folder / "m2");
  }
  write_hf(lattice(folder / "kv", "tinykv", Training::kSigned8));
  EXPECT_THROW((void)run(folder / "kv", folder / "m", Format::kMobileCt, kEverything), Error);
}

// What the published exporter does: largest magnitude / 7.5 for the scale.
void export_shifted(const TemporaryFolder& folder, const std::string& from) {
  (void)run(from, folder / "ct", Format::kW4A16, "rounded-scales");
  const Opened source(from), ct(folder / "ct");
  for (const TensorRef ref : model::required_tensors(ct.config)) {
    const auto t = ct.stored.find(ref);
    if (!t->is_coded()) continue;
    const std::vector<float> w = source.values(ref);
    std::vector<std::byte> codes(w.size() / 2), scales(w.size() / 16);
    for (size_t g = 0; g < w.size() / 32; ++g) {
      float largest = 0;
      for (size_t j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(w[32 * g + j]));
      const float scale = to_float(to_bf16(largest / 7.5f));
      int8_t q[32] = {};
      for (size_t j = 0; j < 32 && scale > 0; ++j) {
        q[j] = static_cast<int8_t>(std::clamp(std::nearbyint(w[32 * g + j] / scale), -8.0f, 7.0f));
      }
      quant::pack_codes(DType::kC4, q, 32, &codes[16 * g]);
      const BF16 half = to_bf16(scale);
      std::memcpy(&scales[2 * g], &half, 2);
    }
    std::fstream file(ct.checkpoint.tensors->path_of(*t->values),
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(t->values->offset);
    file.write(reinterpret_cast<const char*>(codes.data()),
               static_cast<std::streamsize>(codes.size()));
    file.seekp(t->scales->offset);
    file.write(reinterpret_cast<const char*>(scales.data()),
               static_cast<std::streamsize>(scales.size()));
    ASSERT_TRUE(file.good());
  }
}

TEST(ConvertKinds, ShiftedScalesAreUndone) {
  TemporaryFolder folder("shift");
  write_hf(lattice(folder / "hf", "tiny", Training::kSigned8));
  export_shifted(folder, folder / "hf");
  const Opened hf(folder / "hf"), ct(folder / "ct");
  const auto error = [&](const Opened& other) {
    ErrorSums sums;
    for (const TensorRef ref : {TensorRef{TensorKind::kQ, 0}, TensorRef{TensorKind::kDown, 3}}) {
      const std::vector<float> w = hf.values(ref), v = other.values(ref);
      sums.add(measure_error(w.data(), v.data(), static_cast<int64_t>(w.size())));
    }
    return sums.relative_rms();
  };
  EXPECT_NEAR(error(ct), 1.0 / 15, 0.01);
  for (const Format format : {Format::kGgufQ4_0, Format::kW4A16, Format::kHfBf16}) {
    ConvertOptions o;
    o.source = folder / "ct";
    o.target = folder / "undone";
    o.format = format;
    o.undo_scale_shift = true;
    const ConvertReport r = convert(o);
    EXPECT_TRUE(r.losses.empty());
    // What is left is the peaks of groups whose codes do not tell which weight it was.
    EXPECT_LT(error(Opened(folder / "undone")), 0.7 * error(ct)) << name_of(format);
    ASSERT_FALSE(r.notes.empty());
    EXPECT_NE(r.notes.back().find("8/7.5"), std::string::npos);
    std::filesystem::remove_all(folder / "undone");
  }
  // A right lattice is not touched.
  (void)run(folder / "hf", folder / "right", Format::kW4A16, "rounded-scales");
  ConvertOptions o;
  o.source = folder / "right";
  o.target = folder / "undone";
  o.format = Format::kW4A16;
  o.undo_scale_shift = true;
  EXPECT_THROW((void)convert(o), Error);
  EXPECT_FALSE(std::filesystem::exists(folder / "undone"));
}

TEST(ConvertKinds, TowersAndUnknownKeysGoFromDirectoryToDirectory) {
  TemporaryFolder folder("towers");
  HfCheckpoint c = lattice(folder / "hf", "tiny", Training::kAbsmax7);
  c.naming = model::Naming::kHfMultimodal;
  c.tower = true;
  write_hf(c);
  Json config = read_json_file(folder / "hf/config.json");
  config["custom_key"] = {{"answer", 42}};
  testing::write_text(folder / "hf/config.json", to_json_text(config));
  testing::write_text(folder / "hf/LICENSE", "terms of use");
  const std::string tower = "model.embed_vision.embedding_projection.weight";
  for (const Format format : {Format::kW4A16, Format::kHfBf16, Format::kMobileCt}) {
    (void)run(folder / "hf", folder / "out", format,
              format == Format::kMobileCt ? "rounded-weights" : "");
    const Opened a(folder / "hf"), b(folder / "out");
    ASSERT_NE(b.checkpoint.tensors->find(tower), nullptr);
    EXPECT_EQ(b.checkpoint.tensors->find(tower)->shape, a.checkpoint.tensors->find(tower)->shape);
    EXPECT_EQ(b.stored.naming(), model::Naming::kHfMultimodal);
    EXPECT_EQ(b.checkpoint.config["custom_key"]["answer"], 42);
    EXPECT_EQ(b.checkpoint.config.contains("quantization_config"), format != Format::kHfBf16);
    EXPECT_TRUE(std::filesystem::exists(folder / "out/chat_template.jinja"));
    EXPECT_EQ(read_text_file(folder / "out/LICENSE", 100), "terms of use");
    std::filesystem::remove_all(folder / "out");
  }
}

TEST(ConvertKinds, FloatsAreRoundedToBf16OnlyIfAccepted) {
  TemporaryFolder folder("f32");
  const std::string from = synth(folder, "tinykv", "f32");
  expect_refused(from, folder / "hf", Format::kHfBf16, "rounded-weights");
  expect_refused(from, folder / "m.gguf", Format::kGgufBf16, "rounded-weights");
  const ConvertReport r = run(from, folder / "hf", Format::kHfBf16, "rounded-weights");
  EXPECT_LT(r.error.worst_relative, 0.004);
  EXPECT_EQ(differences(Opened(from), Opened(folder / "hf"), true), 0);
  // Kept as they are rather than rounded.
  (void)run(from, folder / "q.gguf", Format::kGgufQ4_0);
  EXPECT_EQ(differences(Opened(from), Opened(folder / "q.gguf")), 0);
}

TEST(ConvertKinds, RecipesGiveTypes) {
  TemporaryFolder folder("recipe");
  write_hf(lattice(folder / "hf", "tiny", Training::kSigned8));
  ConvertOptions o;
  o.source = folder / "hf";
  o.target = folder / "out.gguf";
  o.format = Format::kGguf;
  o.recipe.base = "q6_k";
  o.recipe.tensors = {{"blk.1.attn_*", DType::kQ8_0},
                      {"token_embd.weight", DType::kF16},
                      {"blk.1.atn_q.weight", DType::kQ8_0}};
  const ConvertReport r = convert(o);
  ASSERT_FALSE(r.notes.empty());
  EXPECT_NE(r.notes.back().find("'blk.1.atn_q.weight'"), std::string::npos);
  EXPECT_GT(r.error.relative_rms(), 0);
  const Opened out(folder / "out.gguf");
  EXPECT_EQ(out.stored.find(TensorRef{TensorKind::kUp, 1})->dtype, DType::kQ6_K);
  EXPECT_EQ(out.stored.find(TensorRef{TensorKind::kQ, 1})->dtype, DType::kQ8_0);
  EXPECT_EQ(out.stored.find(TensorRef{TensorKind::kQ, 0})->dtype, DType::kQ6_K);
  EXPECT_EQ(out.stored.find(TensorRef{TensorKind::kQNorm, 1})->dtype, DType::kF32);
  EXPECT_EQ(out.stored.find(TensorRef{TensorKind::kTokenEmbedding, -1})->dtype, DType::kF16);
  EXPECT_EQ(out.checkpoint.gguf->metadata().get_int("general.file_type", 0, 100), 18);
}

// Copies a directory's tensors and adds 8-bit modules of the towers.
void add_coded_towers(const std::string& from, const std::string& to) {
  const io::Checkpoint c = io::open_checkpoint(from);
  struct Tensor {
    io::TensorSpec spec;
    std::vector<std::byte> bytes;
  };
  std::vector<Tensor> tensors;
  for (const io::TensorEntry& e : c.tensors->entries()) {
    std::vector<std::byte> bytes(static_cast<size_t>(e.bytes));
    c.tensors->file_of(e).read(e.offset, bytes);
    tensors.push_back({{e.name, e.dtype, e.shape}, std::move(bytes)});
  }
  const auto floats = [](std::vector<float> values) {
    const auto bytes = std::as_bytes(std::span(values));
    return std::vector<std::byte>(bytes.begin(), bytes.end());
  };
  for (const char* module : {"model.vision_tower.encoder.layers.0.mlp.up_proj.linear",
                             "model.audio_tower.layers.0.self_attn.post.linear"}) {
    const std::string m = module;
    std::vector<std::byte> codes(16 * 32);
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i * 7);
    tensors.push_back({{m + ".weight", DType::kI8, {16, 32}}, codes});
    std::vector<float> scales(16, 0.01f);
    tensors.push_back({{m + ".weight_scale", DType::kF32, {16, 1}}, floats(scales)});
    tensors.push_back({{m + ".input_activation_scale", DType::kF32, {}}, floats({0.05f})});
    tensors.push_back({{m + ".output_activation_scale", DType::kF32, {}}, floats({0.0f})});
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const Tensor& a, const Tensor& b) {
    return alignment_rank(a.spec) < alignment_rank(b.spec);
  });
  std::filesystem::create_directories(to);
  std::vector<io::TensorSpec> specs;
  for (const Tensor& t : tensors) specs.push_back(t.spec);
  const auto writer = io::write_safetensors_directory(to, specs, int64_t{1} << 30);
  for (const Tensor& t : tensors) writer->write(t.spec.name, t.bytes);
  writer->finish();
  std::filesystem::copy_file(from + "/config.json", to + "/config.json");
}

TEST(ConvertKinds, TowersOfCodesFollowTheKind) {
  TemporaryFolder folder("coded_towers");
  add_coded_towers(synth(folder, "tiny", "mobile-transformers"), folder / "m");
  const std::string vision = "model.vision_tower.encoder.layers.0.mlp.up_proj.linear";
  const std::string post = "model.audio_tower.layers.0.self_attn.post.linear";
  const auto entry = [](const Opened& o, const std::string& name) {
    const io::TensorEntry* e = o.checkpoint.tensors->find(name);
    EXPECT_NE(e, nullptr) << name;
    return e == nullptr ? DType::kBool : e->dtype;
  };
  (void)run(folder / "m", folder / "same", Format::kMobileTransformers);
  const Opened same(folder / "same");
  EXPECT_EQ(entry(same, post + ".weight"), DType::kI8);
  EXPECT_EQ(entry(same, vision + ".output_activation_scale"), DType::kF32);

  (void)run(folder / "m", folder / "ct", Format::kMobileCt,
            "rounded-scales,rounded-weights,dropped-cache-scales");
  const Opened ct(folder / "ct");
  EXPECT_EQ(entry(ct, vision + ".weight"), DType::kI8);
  EXPECT_EQ(entry(ct, vision + ".weight_scale"), DType::kBF16);
  EXPECT_EQ(entry(ct, vision + ".input_scale"), DType::kF32);
  EXPECT_EQ(ct.checkpoint.tensors->find(vision + ".output_scale"), nullptr);  // 0
  EXPECT_EQ(entry(ct, post + ".weight"), DType::kBF16);
  EXPECT_EQ(ct.checkpoint.tensors->find(post + ".weight_scale"), nullptr);

  (void)run(folder / "m", folder / "hf", Format::kHfBf16,
            "dropped-activation-scales,rounded-weights");
  const Opened hf(folder / "hf");
  EXPECT_EQ(entry(hf, vision + ".weight"), DType::kBF16);
  EXPECT_EQ(hf.checkpoint.tensors->find(vision + ".weight_scale"), nullptr);
  EXPECT_EQ(hf.checkpoint.tensors->find(vision + ".input_activation_scale"), nullptr);
}

// Wherever it stops, between codes and their scales too.
TEST(ConvertKinds, GoesOnBehindCodes) {
  TemporaryFolder folder("resume");
  write_hf(lattice(folder / "hf", "tiny", Training::kAbsmax7));
  (void)run(folder / "hf", folder / "whole", Format::kW4A16);
  const std::string file = "/model.safetensors";
  const std::string expected = read_text_file((folder / "whole") + file, 1 << 28);
  for (const int calls : {1, 2, 3, 7, 20}) {
    std::atomic<bool> stop{false};
    ConvertOptions o;
    o.source = folder / "hf";
    o.target = folder / "out";
    o.format = Format::kW4A16;
    o.stop = &stop;
    int n = 0;
    o.progress = [&](int64_t, int64_t, const std::string&) { stop = stop || ++n == calls; };
    EXPECT_THROW((void)convert(o), Interrupted);
    const ConvertReport r = run(folder / "hf", folder / "out", Format::kW4A16);
    EXPECT_EQ(r.weights_bit_exact, r.weights);
    EXPECT_EQ(read_text_file((folder / "out") + file, 1 << 28), expected) << calls;
    std::filesystem::remove_all(folder / "out");
  }
}

TEST(ConvertKinds, ThreadsDoNotChangeCodes) {
  TemporaryFolder folder("threads");
  write_hf(lattice(folder / "hf", "tiny", Training::kNone));
  std::string first;
  for (const int threads : {1, 3}) {
    for (const Format format : {Format::kW4A16, Format::kMobileTransformers}) {
      const std::string to = folder / (std::to_string(threads) + name_of(format));
      (void)run(folder / "hf", to, format, kEverything, threads);
    }
  }
  for (const Format format : {Format::kW4A16, Format::kMobileTransformers}) {
    const std::string name = std::string(name_of(format)) + "/model.safetensors";
    EXPECT_EQ(read_text_file(folder / ("1" + name), 1 << 28),
              read_text_file(folder / ("3" + name), 1 << 28));
  }
}

}  // namespace
}  // namespace carat::convert
