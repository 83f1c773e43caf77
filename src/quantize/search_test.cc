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
  void make(const char* size,
            std::function<void(model::TensorRef, std::vector<float>&)> change = {}) {
    convert::testing::HfCheckpoint c;
    c.folder = folder_ / "hf";
    c.config = model::config_of_size(size);
    c.rule = convert::testing::Training::kNone;
    c.change = std::move(change);
    size_ = size;
    convert::testing::write_hf(c);
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 250; ++i) text << "abc de " << static_cast<char>('a' + i * i % 23) << " ";
    options_.source = c.folder;
    options_.target = folder_ / "out.gguf";
    options_.text = folder_ / "text.txt";
    options_.context = 32;
    options_.max_tokens = 400;
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
    ASSERT_TRUE(report.search->written.has_value());
    EXPECT_EQ(report.search->written->value, report.search->measured.value);
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

TEST_F(SearchTest, RefusesWhatCannotBeBeforeTheModelReads) {
  make("tiny");
  options_.search = small_search();
  options_.search->size = 1 << 20;
  options_.search->state = folder_ / "state";
  bool read = false;
  options_.progress = [&](int64_t, int64_t, const std::string&) { read = true; };
  const auto refused = [&](const char* says) {
    try {
      (void)quantize(options_);
      ADD_FAILURE() << says;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
    EXPECT_FALSE(read) << says;
    EXPECT_FALSE(std::filesystem::exists(options_.target));
  };
  options_.search->size = 100;
  refused("no types make the file so small");
  options_.search->size = middle();
  options_.search->types = {DType::kQ6_K};  // the rows of some matrices are no blocks of 256
  refused("no type is left for the matrix");
  options_.search->types = small_search().types;
  options_.search->state = folder_ / "none/state";
  refused("--state");
  options_.search->state = folder_ / "state";
  options_.save_recipe = folder_ / "none/r.json";
  refused("none/r.json");
  options_.save_recipe = folder_ / "r.json";
  options_.overwrite = false;
  std::ofstream(options_.save_recipe) << "mine";
  refused("there already");
  EXPECT_EQ(bytes_of(options_.save_recipe), "mine");
  std::filesystem::remove(options_.save_recipe);
  options_.max_tokens = 40;
  refused("too little text");
  options_.text.clear();
  refused("--text");
  EXPECT_FALSE(std::filesystem::exists(options_.save_recipe));
}

TEST_F(SearchTest, AStateIsOfOneModelTextAndChoiceOfTypes) {
  make("tiny");
  options_.recipe_only = true;
  options_.search = small_search();
  options_.search->size = middle();
  options_.search->state = folder_ / "state";
  (void)quantize(options_);
  const std::string state = bytes_of(folder_ / "state");
  // All is known: another size adds what it measures, the same one nothing.
  (void)quantize(options_);
  EXPECT_TRUE(state == bytes_of(folder_ / "state"));
  for (const char* kind : {"types ", "search ", "check "}) {
    EXPECT_NE(state.find(std::string("\n") + kind), std::string::npos) << kind;
  }

  bool read = false;
  options_.progress = [&](int64_t, int64_t, const std::string&) { read = true; };
  const auto refused = [&](const QuantizeOptions& options, const char* says) {
    try {
      (void)quantize(options);
      ADD_FAILURE() << says;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
    EXPECT_FALSE(read) << says;
    EXPECT_TRUE(state == bytes_of(folder_ / "state")) << says;
  };
  QuantizeOptions other = options_;
  other.search->types = {DType::kQ8_0};
  refused(other, "of other --types");
  other = options_;
  other.search->check_tokens = 160;
  refused(other, "--check-tokens");
  other = options_;
  other.isa = "generic";
  if (std::string(kernels::choose_kernels({}).isa) != "generic") {
    refused(other, "of another instruction set");
  }
  const std::string text = bytes_of(options_.text);
  std::ofstream(options_.text) << "b" << text;
  refused(options_, "another text");
  std::ofstream(options_.text) << text;

  // The same matrices behind another norm.
  convert::testing::HfCheckpoint c;
  c.folder = folder_ / "hf2";
  c.config = model::config_of_size("tiny");
  c.rule = convert::testing::Training::kNone;
  c.change = [](model::TensorRef ref, std::vector<float>& values) {
    if (ref.kind != model::TensorKind::kPostFfnNorm || ref.layer != 1) return;
    for (float& v : values) v *= 0.25f;
  };
  convert::testing::write_hf(c);
  other = options_;
  other.source = c.folder;
  refused(other, "of another model");
}

TEST_F(SearchTest, TakesTheLargestForASizeAboveIt) {
  make("tiny");
  options_.search = small_search();
  options_.search->types = {DType::kQ4_0, DType::kQ8_0};
  options_.search->size = int64_t{1} << 40;
  const SearchReport report = *quantize(options_).search;
  EXPECT_EQ(report.bytes, report.largest);
  EXPECT_EQ(report.bytes, static_cast<int64_t>(std::filesystem::file_size(options_.target)));
  for (const auto& [name, type] : report.recipe.tensors) EXPECT_EQ(type, DType::kQ8_0) << name;
  EXPECT_GT(report.predicted, 0);
  ASSERT_FALSE(report.notes.empty());
  EXPECT_NE(report.notes[0].find("needs no more"), std::string::npos) << report.notes[0];
  options_.search->size = report.largest;
  EXPECT_EQ(quantize(options_).search->bytes, report.largest);
}

TEST_F(SearchTest, GivesTheBitsToWhatMatters) {
  // All layers but one add hardly anything to what tokens are.
  constexpr int64_t kLayer = 2;
  make("tiny", [](model::TensorRef ref, std::vector<float>& values) {
    using model::TensorKind;
    const bool adds = ref.kind == TensorKind::kPostAttnNorm ||
                      ref.kind == TensorKind::kPostFfnNorm || ref.kind == TensorKind::kPlePostNorm;
    if (!adds) return;
    for (float& v : values) v *= ref.layer == kLayer ? 4.0f : 0.001f;
  });
  options_.recipe_only = true;
  options_.search = small_search();
  options_.search->types = {DType::kQ4_0, DType::kQ8_0};
  options_.search->groups = 200;
  options_.search->rounds = options_.search->exchanges = options_.search->points = 0;
  // As much as that layer's matrices and the tables take.
  const model::Config config = model::config_of_size("tiny");
  const auto matters = [](const std::string& name) {
    return name.starts_with("blk.2.") || !name.starts_with("blk.");
  };
  int64_t more = 0;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    if (model::row_of(ref.kind).cls == model::TensorClass::kKeep) continue;
    if (!matters(model::gguf_name(ref))) continue;
    const Shape shape = model::shape_of(config, ref);
    more += bytes_in_file(DType::kQ8_0, shape) - bytes_in_file(DType::kQ4_0, shape);
  }
  options_.search->size = 1;
  int64_t smallest = 0;
  try {
    (void)quantize(options_);
  } catch (const Error& e) {
    smallest = std::stoll(e.info().expected.substr(std::string("at least ").size()));
  }
  ASSERT_GT(smallest, 0);
  options_.search->size = smallest + more;
  const SearchReport report = *quantize(options_).search;
  EXPECT_EQ(report.smallest, smallest);
  int64_t better = 0, all = 0;
  for (const auto& [name, type] : report.recipe.tensors) {
    if (!matters(name)) {
      EXPECT_TRUE(type == DType::kQ4_0 || name.find("blk.2.") != std::string::npos) << name;
      continue;
    }
    ++all;
    better += type == DType::kQ8_0;
  }
  EXPECT_EQ(better, all);
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
  // Of the fewest chunks half.
  chunks.resize(4);
  EXPECT_EQ(split_text(chunks, 500, 400).check.size(), 2u);
  EXPECT_EQ(split_text(chunks, 500, 400).search.size(), 2u);
  const auto hint = [](const std::vector<std::vector<int32_t>>& few) {
    try {
      (void)split_text(few, 500, 400);
    } catch (const Error& e) {
      return e.info().got + ": " + e.info().hint;
    }
    return std::string("none");
  };
  chunks.resize(3);
  EXPECT_EQ(hint(chunks), "3 of 3 chunks: give it more text, or smaller chunks (--context)");
  const std::vector<std::vector<int32_t>> shorter(30, std::vector<int32_t>(16));
  EXPECT_EQ(hint(shorter), "0 of 30 chunks: let chunks be longer (--context)");
  EXPECT_EQ(hint({std::vector<int32_t>(40)}), "1 of 1 chunks: give it more text");
}

}  // namespace
}  // namespace carat::quantize
