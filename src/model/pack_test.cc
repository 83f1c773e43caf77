#include "model/pack.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace carat::model
