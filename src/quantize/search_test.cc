// Whole searches on small random models: sizes, replays, threads, resuming and what is refused.
#include "quantize/search.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "audit/compare.h"
#include "audit/model_logits.h"
#include "base/error.h"
#include "convert/testing/checkpoints.h"
#include "kernels/cpu/dispatch.h"
#include "quantize/choices.h"
#include "quantize/kld_meter.h"
#include "quantize/live_weights.h"
#include "quantize/quantize.h"
#include "quantize/search_text.h"

namespace carat::quantize {
namespace {

using convert::testing::TemporaryFolder;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class SearchTest : public testing::Test {
 protected:
  void make(const char* size) {
    convert::testing::HfCheckpoint c;
    c.folder = folder_ / "hf";
    c.config = model::config_of_size(size);
    c.rule = convert::testing::Training::kNone;
    size_ = size;
    convert::testing::write_hf(c);
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 250; ++i) text << "abc de " << static_cast<char>('a' + i * i % 23) << " ";
    options_.source = c.folder;
    options_.target = folder_ / "out.gguf";
    options_.text = folder_ / "text.txt";
    options_.context = 32;
    options_.save_recipe = folder_ / "r.json";
    options_.overwrite = true;
  }

  static SearchOptions small_search() {
    SearchOptions s;
    s.search_tokens = 96;
    s.check_tokens = 96;
    s.rounds = 1;
    s.exchanges = 3;
    s.points = 3;
    // Few types that are made quickly, measured in few groups.
    s.types = {DType::kQ8_0, DType::kF16};
    s.groups = 12;
    return s;
  }

  // Between the smallest and the largest file of these types.
  int64_t middle() const {
    const model::Config config = model::config_of_size(size_);
    int64_t bytes = 0;
    for (const model::TensorRef ref : model::required_tensors(config)) {
      if (model::row_of(ref.kind).cls == model::TensorClass::kKeep) continue;
      for (const DType type : {DType::kQ8_0, DType::kF16}) {
        bytes += bytes_in_file(type, model::shape_of(config, ref)) / 2;
      }
    }
    return bytes;
  }

  const char* size_ = "";
  TemporaryFolder folder_{"search"};
  QuantizeOptions options_;
};

TEST_F(SearchTest, KeepsTheSizeAndIsReplayedBitForBit) {
  for (const char* size : {"tiny", "tinymoe"}) {
    make(size);
    const int64_t bytes = middle();
    options_.search = small_search();
    options_.search->size = bytes;
    const QuantizeReport report = quantize(options_);
    ASSERT_TRUE(report.search.has_value());
    const auto file = static_cast<int64_t>(std::filesystem::file_size(options_.target));
    EXPECT_EQ(report.search->bytes, file);
    EXPECT_LE(file, bytes);
    EXPECT_GT(file, report.search->smallest);
    // Codes of this method are what was measured.
    EXPECT_EQ(report.search->written.value, report.search->measured.value);
    for (const FrontPoint& p : report.search->front) {
      EXPECT_GE(p.bytes, report.search->smallest);
      EXPECT_LE(p.bytes, report.search->largest);
    }

    QuantizeOptions again = options_;
    again.search.reset();
    again.save_recipe.clear();
    again.recipe = convert::read_recipe(options_.save_recipe);
    again.target = folder_ / "again.gguf";
    again.threads = 2;
    (void)quantize(again);
    EXPECT_TRUE(bytes_of(again.target) == bytes_of(options_.target));
  }
}

TEST_F(SearchTest, IsTheSameForEveryNumberOfThreadsAndAfterAnInterruption) {
  make("tiny");
  const int64_t bytes = middle();
  options_.recipe_only = true;
  options_.search = small_search();
  options_.search->size = bytes;
  options_.search->state = folder_ / "state";
  const std::string one = to_json_text(to_json(*quantize(options_).search));
  EXPECT_FALSE(std::filesystem::exists(options_.target));
  const std::string recipe = bytes_of(options_.save_recipe), state = bytes_of(folder_ / "state");

  // Half of what was measured, cut inside of a line.
  std::ofstream(folder_ / "state", std::ios::binary) << state.substr(0, state.size() / 2);
  options_.threads = 3;
  EXPECT_EQ(one, to_json_text(to_json(*quantize(options_).search)));
  EXPECT_EQ(recipe, bytes_of(options_.save_recipe));
  EXPECT_TRUE(state == bytes_of(folder_ / "state"));

  std::ofstream(folder_ / "state") << "something else\n";
  EXPECT_THROW((void)quantize(options_), Error);
  options_.search->search_tokens = 160;
  std::ofstream(folder_ / "state", std::ios::binary) << state;
  EXPECT_THROW((void)quantize(options_), Error);
}

TEST_F(SearchTest, ReachesAMeanKld) {
  make("tiny");
  const int64_t bytes = middle();
  options_.recipe_only = true;
  options_.search = small_search();
  options_.search->size = bytes;
  const double kld = quantize(options_).search->measured.value;
  options_.search = small_search();
  options_.search->kld = 1.5 * kld;
  const SearchReport report = *quantize(options_).search;
  EXPECT_LE(report.measured.value, 1.5 * kld);
  EXPECT_GE(report.bytes, report.smallest);
  EXPECT_LE(report.bytes, bytes + bytes / 20);
  options_.search->kld = 1e-30;
  try {
    (void)quantize(options_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("--kld"), std::string::npos) << e.what();
  }
}

TEST_F(SearchTest, RefusesWhatCannotBe) {
  make("tiny");
  options_.search = small_search();
  options_.search->size = int64_t{1} << 40;
  EXPECT_THROW((void)quantize(options_), Error);
  options_.search->size = 1 << 20;
  options_.search->types = {DType::kQ6_K};  // the rows of some matrices are no blocks of 256
  EXPECT_THROW((void)quantize(options_), Error);
  options_.search = small_search();
  options_.search->size = 1 << 20;
  options_.overwrite = false;
  std::ofstream(options_.save_recipe) << "mine";
  EXPECT_THROW((void)quantize(options_), Error);
  EXPECT_EQ(bytes_of(options_.save_recipe), "mine");
  std::filesystem::remove(options_.save_recipe);
  options_.max_tokens = 40;
  EXPECT_THROW((void)quantize(options_), Error);
  options_.text.clear();
  EXPECT_THROW((void)quantize(options_), Error);
  EXPECT_FALSE(std::filesystem::exists(options_.target));
  EXPECT_FALSE(std::filesystem::exists(options_.save_recipe));
}

TEST_F(SearchTest, MeasuresWhatAnAuditDoes) {
  make("tiny");
  const model::Model model = model::load_model(options_.source);
  ThreadPool pool(2);
  const kernels::KernelTable& table = kernels::choose_kernels({});
  std::vector<std::vector<int32_t>> chunks;
  Rng rng(3);
  for (const size_t n : {300, 40, 17}) {
    auto& tokens = chunks.emplace_back();
    while (tokens.size() < n) {
      tokens.push_back(
          static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.config().vocab_size))));
    }
  }
  const model::TensorRef ref{model::TensorKind::kDown, 0};
  const kernels::Weight& w = model.weights.at(ref.kind, ref.layer);
  LiveWeights live(model.weights);
  live.replace(ref, DType::kF32, std::vector<std::byte>(static_cast<size_t>(w.rows * w.cols) * 4));
  KldMeter kept({&model.weights, chunks, int64_t{1} << 30, nullptr, {}}, pool, table);
  KldMeter remade({&model.weights, chunks, 0, nullptr, {}}, pool, table);
  const Klds klds = kept.measure(live.weights());
  EXPECT_EQ(klds.sums, remade.measure(live.weights()).sums);
  EXPECT_EQ(kept.measure(model.weights).mean(), 0);
  EXPECT_EQ(kept.positions(), 284 + 24 + 1);

  model::Model changed = model;
  changed.weights = live.weights();
  audit::ModelLogits a(model, {}, pool, table), b(changed, {}, pool, table);
  const auto vocab = static_cast<size_t>(a.vocab_size());
  for (size_t c = 0; c < chunks.size(); ++c) {
    a.start(chunks[c]);
    b.start(chunks[c]);
    double sum = 0;
    std::vector<float> x(vocab), y(vocab);
    for (int32_t i = KldMeter::kFewestBefore - 1; i + 1 < static_cast<int32_t>(chunks[c].size());
         ++i) {
      a.read({&i, 1}, x);
      b.read({&i, 1}, y);
      sum += audit::compare_position(x, y, chunks[c][static_cast<size_t>(i) + 1]).kld;
    }
    EXPECT_NEAR(klds.sums[c], sum, 1e-12 * sum);
    EXPECT_GT(sum, 0);
  }
}

TEST(SearchText, PartsAreApartAndEven) {
  std::vector<std::vector<int32_t>> chunks;
  for (int32_t i = 0; i < 20; ++i) chunks.emplace_back(100, i);
  chunks.emplace_back(5, 99);  // too short to be compared
  const SearchText text = split_text(chunks, 500, 400);
  EXPECT_EQ(text.search.size(), 5u);
  EXPECT_EQ(text.check.size(), 4u);
  for (const auto& s : text.search) {
    for (const auto& c : text.check) EXPECT_NE(s, c);
  }
  EXPECT_LT(text.check.front()[0], 5);
  EXPECT_GE(text.check.back()[0], 15);
  EXPECT_EQ(split_text(chunks, 1, 1 << 20).check.size(), 8u);
  EXPECT_EQ(split_text(chunks, 1 << 20, 1).search.size(), 18u);
  chunks.resize(3);
  EXPECT_THROW((void)split_text(chunks, 500, 400), Error);
}

}  // namespace
}  // namespace carat::quantize
