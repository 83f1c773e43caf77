// Types in GGUF files: those that carat only reads, experts in two tensors, what a file says of
// itself.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "model/load.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using testing::TemporaryFolder;

ConvertReport convert_to(const std::string& source, const std::string& target, Format format) {
  ConvertOptions options;
  options.source = source;
  options.target = target;
  options.format = format;
  return convert(options);
}

// A mixture in BF16.
std::string make_mixture(const TemporaryFolder& folder) {
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tinymoe");
  testing::write_hf(c);
  (void)convert_to(c.folder, folder / "model.gguf", Format::kGgufBf16);
  return folder / "model.gguf";
}

struct Piece {
  io::TensorSpec spec;
  std::vector<std::byte> bytes;
};

// Copies a file; `change` gives the tensors that take the place of one.
void rewrite(const std::string& from, const std::string& to,
             const std::function<std::vector<Piece>(Piece)>& change) {
  const auto file = io::open_gguf(from);
  io::GgufFields fields;
  for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
  std::vector<Piece> pieces;
  for (const io::TensorEntry& e : file->entries()) {
    const TensorView view = file->view(e);
    for (Piece& p :
         change({{e.name, e.dtype, e.shape}, {view.bytes().begin(), view.bytes().end()}})) {
      pieces.push_back(std::move(p));
    }
  }
  std::vector<io::TensorSpec> specs;
  for (const Piece& p : pieces) specs.push_back(p.spec);
  io::GgufWriter writer(to, fields, specs);
  for (const Piece& p : pieces) writer.write(p.spec.name, p.bytes);
  writer.finish();
}

std::vector<float> values_of(const io::TensorSource& source, const std::string& name) {
  const io::TensorEntry& entry = *source.find(name);
  const TensorView view = source.view(entry);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  quant::decode_row(entry.dtype, view.data, values.data(), static_cast<int64_t>(values.size()));
  return values;
}

constexpr const char* kGateUp = "blk.3.ffn_gate_up_exps.weight";

TEST(GgufTypes, Mxfp4ConvertsWithoutLossAndDoesNotRun) {
  TemporaryFolder folder("mxfp4");
  const std::string model = make_mixture(folder);
  rewrite(model, folder / "mx.gguf", [](Piece p) -> std::vector<Piece> {
    if (p.spec.name.find("_exps.weight") == std::string::npos) return {p};
    std::vector<float> values(p.bytes.size() / 2);
    const auto n = static_cast<int64_t>(values.size());
    quant::decode_row(DType::kBF16, p.bytes.data(), values.data(), n);
    p.spec.dtype = DType::kMXFP4;
    p.bytes.resize(static_cast<size_t>(row_bytes(DType::kMXFP4, n)));
    quant::encode_row(DType::kMXFP4, values.data(), p.bytes.data(), n);
    return {p};
  });
  const ConvertReport report =
      convert_to(folder / "mx.gguf", folder / "out.gguf", Format::kGgufBf16);
  EXPECT_EQ(report.weights_bit_exact, report.weights);
  const auto a = io::open_gguf(folder / "mx.gguf");
  const auto b = io::open_gguf(folder / "out.gguf");
  ASSERT_EQ(a->find(kGateUp)->dtype, DType::kMXFP4);
  ASSERT_EQ(b->find(kGateUp)->dtype, DType::kBF16);
  EXPECT_EQ(values_of(*a, kGateUp), values_of(*b, kGateUp));

  try {
    (void)model::load_model(folder / "mx.gguf", {.pack = true, .packing = {}});
    FAIL() << "loaded to compute";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("MXFP4"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("carat convert"), std::string::npos) << e.what();
  }
}

TEST(GgufTypes, ExpertsInTwoTensorsAreTheSameModel) {
  TemporaryFolder folder("two_experts");
  const std::string joined = make_mixture(folder);
  const std::string separate = folder / "separate.gguf";
  rewrite(joined, separate, [](Piece p) -> std::vector<Piece> {
    const size_t at = p.spec.name.find("ffn_gate_up_exps");
    if (at == std::string::npos) return {p};
    Piece gate = p, up = p;
    gate.spec.name.replace(at, 16, "ffn_gate_exps");
    up.spec.name.replace(at, 16, "ffn_up_exps");
    gate.spec.shape[1] = up.spec.shape[1] = p.spec.shape[1] / 2;
    gate.bytes.clear();
    up.bytes.clear();
    const auto half = static_cast<std::ptrdiff_t>(p.bytes.size()) / p.spec.shape[0] / 2;
    for (std::ptrdiff_t e = 0; e < p.spec.shape[0]; ++e) {
      const auto begin = p.bytes.begin() + 2 * e * half;
      gate.bytes.insert(gate.bytes.end(), begin, begin + half);
      up.bytes.insert(up.bytes.end(), begin + half, begin + 2 * half);
    }
    return {gate, up};
  });
  ASSERT_EQ(io::open_gguf(separate)->find(kGateUp), nullptr);
  const ConvertReport report = convert_to(separate, folder / "out.gguf", Format::kGgufBf16);
  EXPECT_EQ(report.weights_bit_exact, report.weights);
  const auto a = io::open_gguf(joined);
  const auto b = io::open_gguf(folder / "out.gguf");
  for (const io::TensorEntry& e : a->entries()) {
    EXPECT_EQ(values_of(*a, e.name), values_of(*b, e.name)) << e.name;
  }
  // Floats are not packed: loading takes a copy.
  const model::Model model = model::load_model(separate, {.pack = true, .packing = {}});
  const kernels::Weight& w = model.weights.at(model::TensorKind::kExpertsGateUp, 3);
  ASSERT_NE(w.data, nullptr);
  std::vector<float> values(static_cast<size_t>(w.count * w.rows * w.cols));
  quant::decode_row(DType::kBF16, w.data, values.data(), static_cast<int64_t>(values.size()));
  EXPECT_EQ(values, values_of(*a, kGateUp));
}

TEST(GgufTypes, AFileSaysWhatMostOfItsLinearLayersAre) {
  TemporaryFolder folder("file_type");
  ConvertOptions o;
  o.source = make_mixture(folder);
  o.target = folder / "out.gguf";
  o.format = Format::kGguf;
  o.overwrite = true;
  o.accepted.add(Loss::kRoundedWeights);
  const auto file_type = [&](const char* base, std::vector<std::pair<std::string, DType>> tensors) {
    o.recipe = {base, std::move(tensors)};
    (void)convert(o);
    const auto file = io::open_gguf(o.target);
    // Whoever reads a file in which anything may be quantized looks for it.
    EXPECT_EQ(file->metadata().get_int("general.quantization_version", 0, 100), 2);
    return file->metadata().get_int("general.file_type", 0, 100);
  };
  EXPECT_EQ(file_type("q4_0_all", {{"*", DType::kF16}}), 1);
  EXPECT_EQ(file_type("q4_0_all", {{"blk.*", DType::kF32}, {"*", DType::kF16}}), 0);
  EXPECT_EQ(file_type("f16", {{"blk.*", DType::kQ8_0}}), 7);
  EXPECT_EQ(file_type("f16", {{"token_embd.weight", DType::kQ8_0}}), 1);
  EXPECT_EQ(file_type("q5_k_m", {{"blk.0.ffn_down.weight", DType::kQ8_0}}), 17);
}

}  // namespace
}  // namespace carat::convert
