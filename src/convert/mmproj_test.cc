#include "convert/mmproj.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "convert/synth.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using testing::TemporaryFolder;

std::vector<float> values_of(const io::TensorSource& source, const std::string& name) {
  const io::TensorEntry* entry = source.find(name);
  if (entry == nullptr) {
    ADD_FAILURE() << "no tensor " << name;
    return {};
  }
  std::vector<std::byte> raw(static_cast<size_t>(entry->bytes));
  source.file_of(*entry).read(entry->offset, raw);
  const int64_t n = entry->shape.empty() ? 1 : *element_count(entry->shape);
  std::vector<float> values(static_cast<size_t>(n));
  quant::decode_row(entry->dtype, raw.data(), values.data(), n);
  return values;
}

// A random multimodal directory without text model.
std::string make_towers(const TemporaryFolder& folder, const char* size) {
  TowersSynthOptions synth;
  synth.config = model::towers_of_size(size);
  synth.target = folder / (std::string(size) + "-towers");
  synth.gguf = false;
  (void)write_synthetic_towers(synth);
  return synth.target;
}

ConvertReport convert_to(const std::string& source, const std::string& target, Format format) {
  ConvertOptions options;
  options.source = source;
  options.target = target;
  options.format = format;
  return convert(options);
}

class TowersOfSize : public ::testing::TestWithParam<const char*> {};

TEST_P(TowersOfSize, SurviveTheWayThereAndBack) {
  TemporaryFolder folder(std::string("towers_") + GetParam());
  const std::string hf = make_towers(folder, GetParam());
  const ConvertReport there = convert_to(hf, folder / "mmproj.gguf", Format::kMmprojBf16);
  EXPECT_GT(there.weights, 0);
  ASSERT_EQ(there.source_files.size(), 1u);
  EXPECT_EQ(there.source_files[0].path, hf + "/model.safetensors");
  ASSERT_EQ(there.target_files.size(), 1u);
  EXPECT_EQ(there.target_files[0].sha256.size(), 64u);
  for (const TensorReport& t : there.tensors) EXPECT_EQ(t.weights_bit_exact, t.weights) << t.name;
  const ConvertReport back = convert_to(folder / "mmproj.gguf", folder / "back", Format::kHfBf16);
  EXPECT_EQ(back.tensors.size(), there.tensors.size());

  const auto a = io::open_checkpoint(hf);
  const auto b = io::open_checkpoint(folder / "back");
  EXPECT_EQ(model::towers_from_hf(b.config), model::towers_of_size(GetParam()));
  ASSERT_EQ(a.tensors->entries().size(), b.tensors->entries().size());
  for (const io::TensorEntry& e : a.tensors->entries()) {
    ASSERT_NE(b.tensors->find(e.name), nullptr) << e.name;
    EXPECT_EQ(b.tensors->find(e.name)->shape, e.shape) << e.name;
    EXPECT_EQ(values_of(*a.tensors, e.name), values_of(*b.tensors, e.name)) << e.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, TowersOfSize, ::testing::Values("tiny", "tinykv"));

TEST(Mmproj, MetadataIsAsLlamaCppAsksForIt) {
  TemporaryFolder folder("mmproj_metadata");
  (void)convert_to(make_towers(folder, "tiny"), folder / "m.gguf", Format::kMmprojBf16);
  const auto file = io::open_gguf(folder / "m.gguf");
  const io::GgufMetadata& m = file->metadata();
  EXPECT_EQ(m.get_string("general.architecture"), "clip");
  EXPECT_EQ(m.get_string("general.type"), "mmproj");
  EXPECT_TRUE(m.get_bool("clip.has_vision_encoder"));
  EXPECT_TRUE(m.get_bool("clip.has_audio_encoder"));
  EXPECT_EQ(m.get_string("clip.vision.projector_type"), "gemma4v");
  EXPECT_EQ(m.get_string("clip.audio.projector_type"), "gemma4a");
  EXPECT_EQ(m.get_int("clip.audio.feed_forward_length", 0, 1 << 20), 256);
  EXPECT_EQ(m.get_floats("clip.vision.image_std", 3), (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(model::towers_from_gguf(m, *file), model::towers_of_size("tiny"));
}

TEST(Mmproj, ValuesStandWhereLlamaCppReadsThem) {
  TemporaryFolder folder("mmproj_places");
  const std::string hf_path = make_towers(folder, "tiny");
  (void)convert_to(hf_path, folder / "m.gguf", Format::kMmprojBf16);
  const auto hf = io::open_checkpoint(hf_path);
  const auto gguf = io::open_gguf(folder / "m.gguf");
  const io::TensorSource& source = *hf.tensors;

  // [dim, row, column, colour] to [dim, colour, row, column].
  const auto flat = values_of(source, "model.vision_tower.patch_embedder.input_proj.weight");
  const auto planes = values_of(*gguf, "v.patch_embd.weight");
  EXPECT_EQ(gguf->find("v.patch_embd.weight")->shape, (Shape{64, 3, 16, 16}));
  for (const int64_t unit : {0, 63}) {
    for (const auto& [row, column, colour] : {std::array{0, 1, 2}, std::array{15, 3, 1}}) {
      EXPECT_EQ(planes[static_cast<size_t>(((unit * 3 + colour) * 16 + row) * 16 + column)],
                flat[static_cast<size_t>(unit * 768 + (row * 16 + column) * 3 + colour)]);
    }
  }
  const auto scale = values_of(source, "model.audio_tower.layers.1.self_attn.per_dim_scale");
  const auto softplus = values_of(*gguf, "a.blk.1.per_dim_scale.weight");
  for (size_t i = 0; i < scale.size(); ++i) {
    EXPECT_FLOAT_EQ(softplus[i], static_cast<float>(std::log(1 + std::exp(double{scale[i]}))));
  }
  EXPECT_EQ(values_of(source, "model.audio_tower.layers.1.lconv1d.pre_layer_norm.weight"),
            values_of(*gguf, "a.blk.1.conv_norm.weight"));
  EXPECT_EQ(values_of(source, "model.audio_tower.layers.1.lconv1d.conv_norm.weight"),
            values_of(*gguf, "a.blk.1.norm_conv.weight"));
  EXPECT_EQ(values_of(source, "model.vision_tower.encoder.layers.1.mlp.up_proj.output_max"),
            values_of(*gguf, "v.blk.1.ffn_up.output_max"));
  EXPECT_EQ(gguf->find("v.blk.1.ffn_up.output_max")->shape, (Shape{1}));
  EXPECT_EQ(gguf->find("a.blk.0.conv_dw.weight")->shape, (Shape{64, 5}));
  EXPECT_EQ(gguf->find("v.blk.0.ffn_up.weight")->dtype, DType::kBF16);
  EXPECT_EQ(gguf->find("v.patch_embd.weight")->dtype, DType::kF32);
}

TEST(Mmproj, PositionsOfUnifiedTowersAreOneTableForEachAxis) {
  TemporaryFolder folder("mmproj_positions");
  const std::string hf_path = make_towers(folder, "tinykv");
  (void)convert_to(hf_path, folder / "m.gguf", Format::kMmprojBf16);
  const auto hf = io::open_checkpoint(hf_path);
  const auto gguf = io::open_gguf(folder / "m.gguf");
  const auto pairs = values_of(*hf.tensors, "model.vision_embedder.pos_embedding");  // [40, 2, 64]
  const auto tables = values_of(*gguf, "v.position_embd.weight");                    // [2, 40, 64]
  EXPECT_EQ(gguf->find("v.position_embd.weight")->shape, (Shape{2, 40, 64}));
  EXPECT_EQ(tables[(1 * 40 + 7) * 64 + 5], pairs[(7 * 2 + 1) * 64 + 5]);
  EXPECT_EQ(tables[39 * 64 + 63], pairs[39 * 2 * 64 + 63]);
  const auto dense = values_of(*hf.tensors, "model.vision_embedder.patch_dense.weight");
  const auto planes = values_of(*gguf, "v.patch_embd.weight");
  EXPECT_EQ(planes[6912 + 2 * 48 * 48 + 5 * 48 + 7], dense[6912 + (5 * 48 + 7) * 3 + 2]);
  EXPECT_EQ(values_of(*gguf, "v.patch_norm.1.bias")[48 * 48 + 1],
            values_of(*hf.tensors, "model.vision_embedder.patch_ln1.bias")[3 + 1]);
}

std::string error_of(const std::string& source, const std::string& target, Format format) {
  try {
    (void)convert_to(source, target, format);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// Rewrites an mmproj file with one change to its tensors.
void rewrite(const std::string& from, const std::string& to,
             const std::function<bool(io::TensorSpec&)>& keep) {
  const auto file = io::open_gguf(from);
  io::GgufFields fields;
  for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
  std::vector<io::TensorSpec> specs;
  std::vector<std::string> sources;
  for (const io::TensorEntry& e : file->entries()) {
    io::TensorSpec spec{e.name, e.dtype, e.shape};
    if (!keep(spec)) continue;
    specs.push_back(spec);
    sources.push_back(e.name);
  }
  io::GgufWriter writer(to, fields, specs);
  for (size_t i = 0; i < specs.size(); ++i) {
    writer.write(specs[i].name, file->view(*file->find(sources[i])).bytes());
  }
  writer.finish();
}

TEST(Mmproj, FilesThatDoNotFitTheirConfigAreRefused) {
  TemporaryFolder folder("mmproj_bad");
  (void)convert_to(make_towers(folder, "tiny"), folder / "m.gguf", Format::kMmprojBf16);
  const auto expect = [&](const std::function<bool(io::TensorSpec&)>& keep, const char* part) {
    rewrite(folder / "m.gguf", folder / "bad.gguf", keep);
    const std::string error = error_of(folder / "bad.gguf", folder / "out", Format::kHfBf16);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  };
  expect([](io::TensorSpec& s) { return s.name != "v.blk.1.attn_q.weight"; },
         "tensor v.blk.1.attn_q.weight: a required tensor is missing");
  expect([](io::TensorSpec& s) { return s.name != "v.blk.1.attn_q.input_max"; },
         "v.blk.1.attn_q.input_max");
  expect(
      [](io::TensorSpec& s) {
        if (s.name == "v.blk.1.attn_q.weight") s.name = "v.blk.7.attn_q.weight";
        return true;
      },
      "missing");
  expect(
      [](io::TensorSpec& s) {
        if (s.name == "v.blk.1.ffn_up.weight") s.shape = {64, 96};
        return true;
      },
      "another shape");
  expect([](io::TensorSpec& s) { return s.name != "v.position_embd.weight"; },
         "v.position_embd.weight");
  const std::string error = error_of(folder / "m.gguf", folder / "q.gguf", Format::kGgufQ4_0);
  EXPECT_NE(error.find("mmproj-bf16 or hf-bf16"), std::string::npos) << error;
}

// A linear layer of F32 or F16 weights that bfloat16 does not hold, in an mmproj file.
void write_fine_linear(const std::string& from, const std::string& to, DType dtype) {
  const auto file = io::open_gguf(from);
  io::GgufFields fields;
  for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
  std::vector<io::TensorSpec> specs;
  for (const io::TensorEntry& e : file->entries()) {
    specs.push_back({e.name, e.name == "v.blk.1.ffn_up.weight" ? dtype : e.dtype, e.shape});
  }
  io::GgufWriter writer(to, fields, specs);
  for (const io::TensorSpec& spec : specs) {
    const io::TensorEntry& e = *file->find(spec.name);
    if (e.name != "v.blk.1.ffn_up.weight") {
      writer.write(e.name, file->view(e).bytes());
      continue;
    }
    std::vector<float> values = values_of(*file, e.name);
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f + static_cast<float>(i % 8) / 1024;
    std::vector<std::byte> bytes(values.size() * (dtype == DType::kF32 ? 4 : 2));
    quant::encode_row(dtype, values.data(), bytes.data(), static_cast<int64_t>(values.size()));
    writer.write(e.name, bytes);
  }
  writer.finish();
}

TEST(Mmproj, RoundedLinearsMustBeAccepted) {
  TemporaryFolder folder("mmproj_rounded");
  (void)convert_to(make_towers(folder, "tiny"), folder / "m.gguf", Format::kMmprojBf16);
  for (const DType dtype : {DType::kF32, DType::kF16}) {
    const std::string source = folder / (std::string(carat::name_of(dtype)) + ".gguf");
    write_fine_linear(folder / "m.gguf", source, dtype);
    for (const Format format : {Format::kMmprojBf16, Format::kHfBf16}) {
      const std::string target = folder / "out";
      const std::string error = error_of(source, target, format);
      EXPECT_NE(error.find("--accept rounded-weights"), std::string::npos) << error;
      EXPECT_NE(error.find("v.blk.1.ffn_up.weight"), std::string::npos) << error;
      EXPECT_FALSE(std::filesystem::exists(target));

      ConvertOptions options;
      options.source = source;
      options.target = target;
      options.format = format;
      options.accepted.add(Loss::kRoundedWeights);
      const ConvertReport r = convert(options);
      EXPECT_EQ(r.losses.text(), "rounded-weights");
      // bfloat16 steps by 1/128 behind 1: one value in 8 is held.
      for (const TensorReport& t : r.tensors) {
        const bool rounded = t.source_name == "v.blk.1.ffn_up.weight";
        EXPECT_EQ(t.weights_bit_exact, rounded ? t.weights / 8 : t.weights) << t.name;
        if (rounded) {
          EXPECT_NEAR(t.error.worst_relative, 4.0 / 1031, 1e-6);
        }
      }
      EXPECT_GT(r.error.squared_error, 0);
      std::filesystem::remove_all(target);
    }
  }
}

TEST(Mmproj, OfAWholeModelTheFilesThatHoldTowersAreHashed) {
  TemporaryFolder folder("mmproj_whole");
  const std::string hf = make_towers(folder, "tiny");
  const std::string towers = hf + "/model-00001-of-00002.safetensors";
  const std::string text = hf + "/model-00002-of-00002.safetensors";
  std::filesystem::rename(hf + "/model.safetensors", towers);
  const char* embedding = "model.language_model.embed_tokens.weight";
  std::filesystem::create_directory(folder / "hf2");
  {
    const auto writer = io::write_safetensors_directory(
        folder / "hf2", {{embedding, DType::kBF16, {4, 8}}}, int64_t{1} << 30);
    writer->write(embedding, std::vector<std::byte>(64));
    writer->finish();
  }
  std::filesystem::rename(folder / "hf2/model.safetensors", text);
  Json index;
  const auto shard = io::open_checkpoint(towers);
  for (const io::TensorEntry& e : shard.tensors->entries()) {
    index["weight_map"][e.name] = "model-00001-of-00002.safetensors";
  }
  index["weight_map"][embedding] = "model-00002-of-00002.safetensors";
  std::ofstream(hf + "/model.safetensors.index.json") << to_json_text(index);

  const ConvertReport r = convert_to(hf, folder / "m.gguf", Format::kMmprojBf16);
  ASSERT_EQ(r.source_files.size(), 1u);
  EXPECT_EQ(r.source_files[0].path, towers);
  EXPECT_EQ(r.source_files[0].sha256, digest_files({towers}, nullptr, {})[0].sha256);
}

TEST(Mmproj, GoesOnAfterAnInterruption) {
  TemporaryFolder folder("mmproj_resume");
  const std::string towers = make_towers(folder, "tiny");
  for (const Format format : {Format::kMmprojBf16, Format::kHfBf16}) {
    const bool gguf = format == Format::kMmprojBf16;
    ConvertOptions options;
    options.format = format;
    options.source = gguf ? towers : folder / "whole.gguf";
    options.target = folder / (gguf ? "whole.gguf" : "whole");
    const ConvertReport whole = convert(options);
    options.target = folder / (gguf ? "m.gguf" : "m");
    std::atomic<bool> stop{false};
    options.stop = &stop;
    int tensors = 0;
    options.progress = [&](int64_t, int64_t, const std::string& note) {
      tensors += note != "checksum of the source";
      stop = tensors == 20;
    };
    std::string told;
    options.note = [&](const std::string& text) { told += text; };
    EXPECT_THROW((void)convert(options), Interrupted);
    EXPECT_NE(told.find("are kept in"), std::string::npos) << told;
    EXPECT_TRUE(
        std::filesystem::exists(folder / (gguf ? "m.gguf.part" : "m/model.safetensors.part")));
    stop = false;
    const ConvertReport resumed = convert(options);
    EXPECT_NE(told.find("going on behind 20 of"), std::string::npos) << told;
    EXPECT_EQ(resumed.target_files.at(0).sha256, whole.target_files.at(0).sha256);
    EXPECT_EQ(resumed.weights_bit_exact, whole.weights_bit_exact);
    EXPECT_EQ(resumed.tensors.size(), whole.tensors.size());
    for (const std::string& name : folder.files()) {
      EXPECT_EQ(name.find(".part"), std::string::npos) << name;
    }
  }
}

// A whole mobile checkpoint: one linear layer of its towers in codes, and one tensor more of the
// name `more` unless that is empty.
std::string make_coded(const TemporaryFolder& folder, const std::string& more) {
  SynthOptions synth;
  synth.size = "tiny";
  synth.type = "mobile-transformers";
  synth.gguf = false;
  synth.overwrite = true;
  synth.target = folder / "mobile";
  (void)write_synthetic(synth);
  const io::Checkpoint text = io::open_checkpoint(synth.target);
  const io::Checkpoint towers = io::open_checkpoint(make_towers(folder, "tiny"));
  std::map<std::string, std::pair<io::TensorSpec, std::vector<std::byte>>> tensors;
  for (const io::Checkpoint* c : {&text, &towers}) {
    for (const io::TensorEntry& e : c->tensors->entries()) {
      std::vector<std::byte> bytes(static_cast<size_t>(e.bytes));
      c->tensors->file_of(e).read(e.offset, bytes);
      tensors[e.name] = {{e.name, e.dtype, e.shape}, std::move(bytes)};
    }
  }
  const std::string module = "model.vision_tower.encoder.layers.0.mlp.up_proj.linear";
  auto& [spec, codes] = tensors.at(module + ".weight");
  spec.dtype = DType::kI8;
  codes.resize(codes.size() / 2);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i * 7);
  const int64_t rows = spec.shape[0];
  const auto add_floats = [&](const std::string& name, const Shape& shape) {
    std::vector<float> values(static_cast<size_t>(*element_count(shape)), 0.015625f);
    const auto bytes = std::as_bytes(std::span(values));
    tensors[name] = {{name, DType::kF32, shape}, {bytes.begin(), bytes.end()}};
  };
  add_floats(module + ".weight_scale", {rows, 1});
  add_floats(module + ".input_activation_scale", {1});
  add_floats(module + ".output_activation_scale", {1});
  if (!more.empty()) add_floats(more, {8});
  Json config = text.config;
  config["vision_config"] = towers.config["vision_config"];
  config["audio_config"] = towers.config["audio_config"];
  config["text_config"]["hidden_size"] = towers.config["text_config"]["hidden_size"];

  const std::string target = folder / "coded";
  std::filesystem::remove_all(target);
  std::filesystem::create_directories(target);
  std::vector<io::TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back(tensor.first);
  io::order_for_safetensors(specs);
  const auto writer = io::write_safetensors_directory(target, specs, int64_t{1} << 30);
  for (const io::TensorSpec& s : specs) writer->write(s.name, tensors.at(s.name).second);
  writer->finish();
  testing::write_text(target + "/config.json", to_json_text(config, 2));
  return target;
}

TEST(Mmproj, CodedTowersHoldNothingThatIsNotCalledFor) {
  TemporaryFolder folder("mmproj_coded");
  const std::string target = folder / "m.gguf";
  ConvertOptions options;
  options.source = make_coded(folder, "");
  options.target = target;
  options.format = Format::kMmprojBf16;
  options.accepted.add(Loss::kRoundedWeights);
  (void)convert(options);
  const auto gguf = io::open_gguf(target);
  // Codes 0, 7, 14 times 1/64.
  const std::vector<float> up = values_of(*gguf, "v.blk.0.ffn_up.weight");
  ASSERT_GT(up.size(), 2u);
  EXPECT_EQ((std::vector<float>(up.begin(), up.begin() + 3)),
            (std::vector<float>{0, 7.0f / 64, 14.0f / 64}));
  std::filesystem::remove(target);
  for (const char* more : {"model.vision_tower.encoder.layers.9.input_layernorm.weight",
                           "model.audio_tower.more.weight",
                           // Norms have no codes.
                           "model.vision_tower.encoder.layers.0.input_layernorm.input_scale"}) {
    const std::string error = error_of(make_coded(folder, more), target, Format::kMmprojBf16);
    EXPECT_NE(error.find(more), std::string::npos) << error;
    EXPECT_FALSE(std::filesystem::exists(target));
  }
}

TEST(Mmproj, TextOnlyCheckpointsHaveNone) {
  TemporaryFolder folder("mmproj_text");
  testing::HfCheckpoint c;
  c.folder = folder / "text";
  c.config = model::config_of_size("tiny");
  testing::write_hf(c);
  const std::string error = error_of(c.folder, folder / "m.gguf", Format::kMmprojBf16);
  EXPECT_NE(error.find("no vision or audio tower"), std::string::npos) << error;
}

}  // namespace
}  // namespace carat::convert
