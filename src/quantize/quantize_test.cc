// Whole files: what quantize() writes loads, and is what its report says.
#include "quantize/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "convert/testing/checkpoints.h"
#include "model/load.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

using convert::testing::TemporaryFolder;

std::string make_source(const TemporaryFolder& folder, const char* size) {
  convert::testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size(size);
  convert::testing::write_hf(c);
  std::ofstream text(folder / "text.txt");
  for (int i = 0; i < 90; ++i) text << "abc de " << static_cast<char>('a' + i * i % 23) << " ";
  return c.folder;
}

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<float> values_of(const io::TensorSource& source, const io::TensorEntry& e) {
  const TensorView view = source.view(e);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  quant::decode_row(e.dtype, view.data, values.data(), static_cast<int64_t>(values.size()));
  return values;
}

QuantizeOptions options_of(const TemporaryFolder& folder, const std::string& source) {
  QuantizeOptions o;
  o.source = source;
  o.target = folder / "out.gguf";
  o.text = folder / "text.txt";
  o.context = 64;
  o.overwrite = true;
  o.threads = 2;
  return o;
}

TEST(Quantize, FilesAreWhatTheReportSays) {
  for (const char* size : {"tiny", "tinymoe"}) {
    const TemporaryFolder folder(std::string("quantize_") + size);
    QuantizeOptions o = options_of(folder, make_source(folder, size));
    convert::ConvertOptions c;
    c.source = o.source;
    c.target = folder / "bf16.gguf";
    c.format = convert::Format::kGgufBf16;
    (void)convert::convert(c);
    const auto original = io::open_checkpoint(c.target);
    for (const Method method : {Method::kRound, Method::kFeedback}) {
      o.method = method;
      for (const std::string recipe : {"q4_0_all", "q4_k"}) {
        if (recipe == "q4_0_all" && size == std::string("tinymoe")) continue;  // much like tiny
        o.recipe.base = recipe;
        const QuantizeReport report = quantize(o);
        const model::Model model = model::load_model(o.target);
        const auto written = io::open_checkpoint(o.target);
        int64_t fed = 0;
        for (const MatrixReport& m : report.matrices) {
          const io::TensorEntry* const e = written.tensors->find(m.name);
          ASSERT_NE(e, nullptr) << m.name;
          EXPECT_EQ(e->dtype, m.dtype) << m.name;
          EXPECT_EQ(e->bytes, m.bytes) << m.name;
          const auto now = values_of(*written.tensors, *e);
          const auto before = values_of(*original.tensors, *original.tensors->find(m.name));
          double lost = 0, whole = 0;
          for (size_t i = 0; i < now.size(); ++i) {
            lost += (double{now[i]} - before[i]) * (double{now[i]} - before[i]);
            whole += double{before[i]} * before[i];
          }
          // Blocks that convert found on the lattice count as exact, although the source rounded
          // them.
          const double tolerance = m.method == "round" ? 2e-3 : 1e-5;
          EXPECT_NEAR(m.error, std::sqrt(lost / whole), tolerance) << m.name << " " << m.method;
          fed += m.method.starts_with("feedback");
          EXPECT_EQ(m.output_error >= 0, m.method.starts_with("feedback")) << m.name;
        }
        EXPECT_EQ(fed > 0, method == Method::kFeedback);
      }
    }
  }
}

TEST(Quantize, FilesAreTheSameForEveryNumberOfThreads) {
  const TemporaryFolder folder("quantize");
  QuantizeOptions o = options_of(folder, make_source(folder, "tinymoe"));
  o.method = Method::kFeedback;
  o.threads = 1;
  (void)quantize(o);
  const std::string one = bytes_of(o.target);
  o.threads = 3;
  o.memory = 20'000'000;
  (void)quantize(o);
  EXPECT_TRUE(one == bytes_of(o.target));
}

TEST(Quantize, RefusesWithoutTextOrMemoryAndLeavesNothing) {
  const TemporaryFolder folder("quantize");
  QuantizeOptions o = options_of(folder, make_source(folder, "tiny"));
  o.method = Method::kFeedback;
  o.memory = 1000;
  EXPECT_THROW((void)quantize(o), Error);
  o.memory = int64_t{1} << 30;
  o.text.clear();
  EXPECT_THROW((void)quantize(o), Error);
  const std::atomic<bool> stop{true};
  o.text = folder / "text.txt";
  o.stop = &stop;
  EXPECT_THROW((void)quantize(o), Interrupted);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "")) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(name == "hf" || name == "text.txt") << name;
  }
}

}  // namespace
}  // namespace carat::quantize
