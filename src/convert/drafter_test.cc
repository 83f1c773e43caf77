#include "convert/drafter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using testing::TemporaryFolder;

std::string make_drafter(const TemporaryFolder& folder, const char* size, bool lattice = true) {
  DrafterSynthOptions synth;
  synth.size = size;
  synth.target = folder / "source";
  synth.gguf = false;
  synth.lattice = lattice;
  (void)write_synthetic_drafter(synth);
  return synth.target;
}

ConvertReport convert_to(const std::string& source, const std::string& target, Format format) {
  ConvertOptions options;
  options.source = source;
  options.target = target;
  options.format = format;
  return convert(options);
}

std::vector<float> values_of(const io::TensorSource& source, const std::string& name) {
  const io::TensorEntry& entry = *source.find(name);
  std::vector<std::byte> raw(static_cast<size_t>(entry.bytes));
  source.file_of(entry).read(entry.offset, raw);
  const int64_t n = entry.shape.empty() ? 1 : *element_count(entry.shape);
  std::vector<float> values(static_cast<size_t>(n));
  quant::decode_row(entry.dtype, raw.data(), values.data(), n);
  for (float& v : values) v = to_float(to_bf16(v)) + 0.0f;  // zeros of one sign
  return values;
}

class DrafterOfSize : public ::testing::TestWithParam<const char*> {};

// The lattice of quantization-aware training survives 4 bits, there and back.
TEST_P(DrafterOfSize, SurvivesTheWayThereAndBack) {
  TemporaryFolder folder(std::string("drafter_") + GetParam());
  const std::string source = make_drafter(folder, GetParam());
  for (const Format format : {Format::kGgufQ4_0, Format::kGgufBf16}) {
    const std::string gguf = folder / (std::string(name_of(format)) + ".gguf");
    const ConvertReport there = convert_to(source, gguf, format);
    EXPECT_EQ(there.weights_bit_exact, there.weights);
    EXPECT_EQ(there.matrices_kept, 0);
    for (const TensorReport& t : there.tensors) {
      if (t.is_matrix) {
        EXPECT_EQ(t.to, format == Format::kGgufQ4_0 ? DType::kQ4_0 : DType::kBF16) << t.name;
      }
    }
    const std::string back = folder / (std::string("back-") + name_of(format));
    (void)convert_to(gguf, back, Format::kHfBf16);
    const auto a = io::open_checkpoint(source);
    const auto b = io::open_checkpoint(back);
    model::DrafterConfig expected = model::drafter_of_size(GetParam());
    expected.n_centroids = expected.n_active_centroids = 0;
    EXPECT_EQ(model::drafter_from_hf(b.config), expected);
    EXPECT_FALSE(b.tokenizer_path.empty());
    for (const model::DrafterTensor& t : drafter_tensors(expected)) {
      const std::string name = drafter_hf_name(t);
      ASSERT_NE(b.tensors->find(name), nullptr) << name;
      EXPECT_EQ(values_of(*a.tensors, name), values_of(*b.tensors, name)) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, DrafterOfSize, ::testing::Values("tiny", "tinykv"));

TEST(Drafter, GgufHasTheKeysAndTensorsThatLlamaCppAsksFor) {
  TemporaryFolder folder("drafter_keys");
  const ConvertReport report =
      convert_to(make_drafter(folder, "tiny"), folder / "d.gguf", Format::kGgufQ4_0);
  const auto file = io::open_gguf(folder / "d.gguf");
  const io::GgufMetadata& m = file->metadata();
  EXPECT_EQ(m.get_string("general.architecture"), "gemma4-assistant");
  EXPECT_EQ(m.get_int("gemma4-assistant.embedding_length_out", 0, 1 << 20), 256);
  EXPECT_EQ(m.get_int("gemma4-assistant.nextn_predict_layers", 0, 9), 4);
  EXPECT_EQ(m.get_strings("tokenizer.ggml.tokens").size(), 512);
  EXPECT_EQ(file->find("masked_embd_centroids.weight"), nullptr);
  EXPECT_EQ(file->find("rope_freqs.weight")->shape, (Shape{32}));
  EXPECT_EQ(file->find("nextn.pre_projection.weight")->shape, (Shape{128, 512}));
  ASSERT_EQ(report.notes.size(), 2u);
  EXPECT_NE(report.notes[1].find("centroids"), std::string::npos);
}

TEST(Drafter, GoesOnAfterAnInterruption) {
  TemporaryFolder folder("drafter_resume");
  ConvertOptions options;
  options.source = make_drafter(folder, "tiny");
  options.target = folder / "whole.gguf";
  const ConvertReport whole = convert(options);
  options.target = folder / "d.gguf";
  std::atomic<bool> stop{false};
  options.stop = &stop;
  int calls = 0;
  options.progress = [&](int64_t, int64_t, const std::string&) { stop = ++calls == 9; };
  std::string told;
  options.note = [&](const std::string& text) { told += text; };
  EXPECT_THROW((void)convert(options), Interrupted);
  EXPECT_TRUE(std::filesystem::exists(folder / "d.gguf.part"));
  stop = false;
  const ConvertReport resumed = convert(options);
  EXPECT_NE(told.find("going on behind"), std::string::npos) << told;
  EXPECT_EQ(resumed.target_files[0].sha256, whole.target_files[0].sha256);
  EXPECT_EQ(resumed.weights_bit_exact, whole.weights_bit_exact);
  EXPECT_FALSE(std::filesystem::exists(folder / "d.gguf.part.journal"));
}

TEST(Drafter, CentroidsStayInADirectory) {
  TemporaryFolder folder("drafter_centroids");
  const std::string source = make_drafter(folder, "tiny");
  (void)convert_to(source, folder / "copy", Format::kHfBf16);
  const auto a = io::open_checkpoint(source);
  const auto b = io::open_checkpoint(folder / "copy");
  EXPECT_EQ(model::drafter_from_hf(b.config), model::drafter_of_size("tiny"));
  const char* name = "masked_embedding.token_ordering";
  const auto bytes = [&](const io::Checkpoint& c) {
    const TensorView v = c.tensors->view(*c.tensors->find(name));
    return std::vector<std::byte>(v.bytes().begin(), v.bytes().end());
  };
  EXPECT_EQ(bytes(a), bytes(b));
}

TEST(Drafter, MatricesOffTheLatticeStay) {
  TemporaryFolder folder("drafter_off");
  const ConvertReport report =
      convert_to(make_drafter(folder, "tiny", false), folder / "d.gguf", Format::kGgufQ4_0);
  EXPECT_EQ(report.matrices_kept, report.matrices);
  EXPECT_EQ(report.weights_bit_exact, report.weights);
  const auto file = io::open_gguf(folder / "d.gguf");
  EXPECT_EQ(file->find("blk.0.attn_q.weight")->dtype, DType::kBF16);
}

std::string error_of(const std::string& source, const std::string& target, Format format) {
  try {
    (void)convert_to(source, target, format);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Drafter, RoundedWeightsMustBeAccepted) {
  TemporaryFolder folder("drafter_rounded");
  (void)convert_to(make_drafter(folder, "tiny"), folder / "d.gguf", Format::kGgufBf16);
  const char* name = "blk.1.ffn_up.weight";
  const auto file = io::open_gguf(folder / "d.gguf");
  io::GgufFields fields;
  for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
  std::vector<io::TensorSpec> specs;
  for (const io::TensorEntry& e : file->entries()) {
    specs.push_back({e.name, e.name == name ? DType::kF32 : e.dtype, e.shape});
  }
  io::GgufWriter writer(folder / "fine.gguf", fields, specs);
  for (const io::TensorSpec& spec : specs) {
    const io::TensorEntry& e = *file->find(spec.name);
    if (spec.name != name) {
      writer.write(spec.name, file->view(e).bytes());
      continue;
    }
    std::vector<float> values(static_cast<size_t>(*element_count(e.shape)));
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1.0f + static_cast<float>(i % 8) / 1024;
    writer.write(spec.name, std::as_bytes(std::span(values)));
  }
  writer.finish();
  for (const Format format : {Format::kGgufBf16, Format::kHfBf16, Format::kGgufQ4_0}) {
    ConvertOptions options;
    options.source = folder / "fine.gguf";
    options.target = folder / "out";
    options.format = format;
    const std::string error = error_of(options.source, options.target, format);
    EXPECT_NE(error.find("--accept rounded-weights"), std::string::npos) << error;
    EXPECT_NE(error.find(name), std::string::npos) << error;
    EXPECT_FALSE(std::filesystem::exists(options.target));

    options.accepted.add(Loss::kRoundedWeights);
    const ConvertReport r = convert(options);
    EXPECT_EQ(r.losses.text(), "rounded-weights");
    for (const TensorReport& t : r.tensors) {
      const bool rounded = t.source_name == name;
      EXPECT_EQ(t.weights_bit_exact, rounded ? t.weights / 8 : t.weights) << t.name;
      if (rounded) {
        EXPECT_NEAR(t.error.worst_relative, 4.0 / 1031, 1e-5);
      }
    }
    EXPECT_GT(r.error.squared_error, 0);
    std::filesystem::remove_all(options.target);
  }
}

TEST(Drafter, FilesThatDoNotFitAreRefused) {
  TemporaryFolder folder("drafter_bad");
  (void)convert_to(make_drafter(folder, "tiny"), folder / "d.gguf", Format::kGgufBf16);
  const auto expect = [&](const std::function<bool(io::TensorSpec&)>& keep, const char* part) {
    const auto file = io::open_gguf(folder / "d.gguf");
    io::GgufFields fields;
    for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
    std::vector<io::TensorSpec> specs;
    std::vector<std::string> names;
    for (const io::TensorEntry& e : file->entries()) {
      io::TensorSpec spec{e.name, e.dtype, e.shape};
      if (!keep(spec)) continue;
      specs.push_back(spec);
      names.push_back(e.name);
    }
    io::GgufWriter writer(folder / "bad.gguf", fields, specs);
    for (size_t i = 0; i < specs.size(); ++i) {
      writer.write(specs[i].name, file->view(*file->find(names[i])).bytes());
    }
    writer.finish();
    const std::string error = error_of(folder / "bad.gguf", folder / "out", Format::kHfBf16);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  };
  expect([](io::TensorSpec& s) { return s.name != "blk.2.attn_q_norm.weight"; },
         "tensor blk.2.attn_q_norm.weight: a required tensor is missing");
  expect([](io::TensorSpec& s) { return s.name != "rope_freqs.weight"; }, "rope_freqs.weight");
  expect(
      [](io::TensorSpec& s) {
        if (s.name == "blk.1.ffn_up.weight") s.shape = {128, 256};
        return true;
      },
      "another shape");
  const std::string error = error_of(folder / "d.gguf", folder / "x.gguf", Format::kMmprojBf16);
  EXPECT_NE(error, "no error");
  const std::string google = error_of(folder / "d.gguf", folder / "x.gguf", Format::kGgufGoogle);
  EXPECT_NE(google.find("gguf-q4_0, gguf-bf16 or hf-bf16"), std::string::npos) << google;
}

}  // namespace
}  // namespace carat::convert
