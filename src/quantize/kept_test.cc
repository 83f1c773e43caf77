// Sources that are quantized already: a matrix whose type stays the same keeps its bytes.
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/error.h"
#include "convert/testing/checkpoints.h"
#include "model/load.h"
#include "quantize/quantize.h"

namespace carat::quantize {
namespace {

using convert::testing::TemporaryFolder;
using convert::testing::Training;

class Kept : public testing::Test {
 protected:
  // A small model of random weights in the types of a recipe, and a text.
  void make(const char* size, const char* recipe, Training rule = Training::kNone) {
    convert::testing::HfCheckpoint hf;
    hf.folder = folder_ / "hf";
    hf.config = model::config_of_size(size);
    hf.rule = rule;
    convert::testing::write_hf(hf);
    convert::ConvertOptions c;
    c.source = hf.folder;
    c.target = folder_ / "source.gguf";
    c.format = convert::Format::kGguf;
    c.recipe.base = recipe;
    c.accepted.add(convert::Loss::kRoundedWeights);
    c.overwrite = true;
    (void)convert::convert(c);
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 90; ++i) text << "abc de " << static_cast<char>('a' + i * i % 23) << " ";
    options_.source = c.target;
    options_.target = folder_ / "out.gguf";
    options_.text = folder_ / "text.txt";
    options_.context = 32;
    options_.max_tokens = 120;
    options_.recipe.base = recipe;
    options_.steps = 1;
    options_.threads = 2;
    options_.overwrite = true;
  }

  std::vector<std::byte> bytes_of(const std::string& path, const std::string& tensor) const {
    const auto file = io::open_checkpoint(path);
    const io::TensorEntry* const e = file.tensors->find(tensor);
    CHECK(e != nullptr);
    std::vector<std::byte> bytes(static_cast<size_t>(e->bytes));
    file.tensors->file_of(*e).read(e->offset, bytes);
    return bytes;
  }

  TemporaryFolder folder_{"kept"};
  QuantizeOptions options_;
};

TEST_F(Kept, EveryMethodLeavesMatricesOfTheSourcesType) {
  make("tiny", "q4_k_m");
  // One kind of matrix gets another type, so that each method has something to do.
  options_.recipe.tensors = {{"blk.*.attn_k.weight", DType::kQ4_0}};
  for (const Method method :
       {Method::kRound, Method::kFeedback, Method::kAutoRound, Method::kScales}) {
    options_.method = method;
    options_.start = method == Method::kScales ? Start::kRound : Start::kFeedback;
    const QuantizeReport report = quantize(options_);
    int64_t kept = 0, made = 0;
    for (const MatrixReport& m : report.matrices) {
      const bool other = m.name.ends_with("attn_k.weight");
      EXPECT_EQ(m.method == "kept", !other) << m.name << " " << m.method;
      const bool same = bytes_of(options_.source, m.name) == bytes_of(options_.target, m.name);
      EXPECT_EQ(same, !other) << name_of(method) << " " << m.name;
      kept += !other;
      made += other;
      if (other) continue;
      EXPECT_EQ(m.error, 0) << m.name;
      EXPECT_LE(m.weighted_error, 0) << m.name;
    }
    EXPECT_GT(kept, 20);
    EXPECT_GT(made, 2);
  }
}

TEST_F(Kept, WithoutAnImportanceMatrixTheyAreReportedToo) {
  make("tinymoe", "q5_0");
  options_.text.clear();
  for (const MatrixReport& m : quantize(options_).matrices) {
    EXPECT_EQ(m.method, "kept") << m.name;
    EXPECT_EQ(m.error, 0) << m.name;
    EXPECT_TRUE(bytes_of(options_.source, m.name) == bytes_of(options_.target, m.name)) << m.name;
  }
}

// A checkpoint of quantization-aware training: rounding finds the blocks that convert finds, also
// of matrices that the importance matrix lacks (the per-layer table).
TEST_F(Kept, RoundingLeavesBlocksOnTheLattice) {
  for (const auto rule : {Training::kSigned8, Training::kAbsmax7}) {
    make("tiny", "q4_0_all", rule);
    options_.source = folder_ / "hf";
    const QuantizeReport report = quantize(options_);
    EXPECT_GT(report.matrices.size(), 20u);
    for (const MatrixReport& m : report.matrices) {
      EXPECT_EQ(m.dtype, DType::kQ4_0) << m.name;
      EXPECT_TRUE(bytes_of(folder_ / "source.gguf", m.name) == bytes_of(options_.target, m.name))
          << m.name << " " << m.method;
    }
  }
}

// The mean KLD that a search measures is that of the file, also where matrices keep their type.
TEST_F(Kept, ASearchMeasuresTheFileThatIsWritten) {
  make("tiny", "q5_0");
  SearchOptions s;
  s.search_tokens = 96;
  s.check_tokens = 96;
  s.rounds = 0;
  s.exchanges = 0;
  s.points = 2;
  s.groups = 6;
  s.types = {DType::kQ4_0, DType::kQ5_0, DType::kQ6_K, DType::kQ8_0, DType::kF16};
  s.kld = 1e-7;
  options_.max_tokens = 0;
  options_.search = s;
  const QuantizeReport report = quantize(options_);
  EXPECT_EQ(report.search->measured.value, report.search->written->value);
  EXPECT_LE(report.search->written->value, 1e-7);
}

// Feedback makes the codes that these methods begin with, if another start is not asked for.
TEST(QuantizeJson, TellsHowTheStartWasMade) {
  QuantizeReport report;
  report.options.damping = 0.03;
  report.options.original_inputs = true;
  for (const Method method : {Method::kFeedback, Method::kAutoRound, Method::kScales}) {
    report.options.method = method;
    report.options.start = method == Method::kScales ? Start::kAutoRound : Start::kFeedback;
    const Json j = to_json(report);
    EXPECT_EQ(j.value("damping", 0.0), 0.03) << name_of(method);
    EXPECT_EQ(j.value("inputs", ""), "original") << name_of(method);
  }
  report.options.start = Start::kRound;
  EXPECT_FALSE(to_json(report).contains("damping"));
}

}  // namespace
}  // namespace carat::quantize
