#include "app/memory.h"

#include <gtest/gtest.h>

#include "app/options.h"
#include "app/traffic.h"
#include "base/error.h"
#include "model/testing/random_model.h"

namespace carat::app {
namespace {

TEST(ParseBytes, KnowsUnits) {
  EXPECT_EQ(parse_bytes("1048576", "--x"), 1048576);
  EXPECT_EQ(parse_bytes("20kB", "--x"), 20000);
  EXPECT_EQ(parse_bytes("2.5GB", "--x"), 2500000000);
  EXPECT_EQ(parse_bytes("512 MB", "--x"), 512000000);
  for (const char* bad : {"", "MB", "-1", "1TB", "nan", "1e30GB", "5 apples"}) {
    EXPECT_THROW((void)parse_bytes(bad, "--x"), UsageError) << bad;
  }
}

TEST(Memory, OfAGroupDoesNotCountPagesOfFiles) {
  EXPECT_EQ(group_memory("max\n", "500\n", ""), std::nullopt);
  EXPECT_EQ(group_memory("", "", ""), std::nullopt);
  EXPECT_EQ(group_memory("1000\n", "600\n", "anon 200\nfile 400\n"), 400);
  EXPECT_EQ(group_memory("1000\n", "600\n", "anon 200\ninactive_file 250\nactive_file 50\n"), 700);
  EXPECT_EQ(group_memory("1000\n", "600\n",
                         "inactive_file 1\nactive_file 1\ntotal_inactive_file 250\n"
                         "total_active_file 50\n"),
            700);
  EXPECT_EQ(group_memory("1000\n", "2000\n", ""), 0);
  EXPECT_EQ(group_memory("1000\n", "100\n", "inactive_file 500\n"), 1000);
}

TEST(Memory, IsMeasured) {
  EXPECT_GT(available_memory(), 0);
  EXPECT_GT(peak_resident_bytes(), 1 << 20);
}

model::Model random_model(const char* size) {
  model::Model m;
  m.weights = model::testing::random_weights(model::config_of_size(size), DType::kF32, DType::kF32);
  return m;
}

// Bytes of every parameter once, whatever a step needs of them.
int64_t all_bytes(const model::Model& m) {
  int64_t bytes = 0;
  for (const kernels::Weight& w : m.weights.all) bytes += w.count * w.rows * w.row_size();
  return bytes;
}

TEST(DecodeBytes, CountsTheWeightsOfOneStep) {
  // K = V kind: nothing is skipped; one more row of the embedding, and one position in six layers.
  const model::Model dense = random_model("tinykv");
  const model::Config& c = dense.config();
  int64_t keys = 0;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    keys += 2 * c.layer(i).n_kv_heads * c.layer(i).head_dim * 4;
  }
  EXPECT_EQ(decode_bytes(dense, kernels::KvType::kF32, 0), all_bytes(dense) + c.dim * 4 + keys);

  // Per-layer tables and experts are read in part.
  const model::Model small = random_model("tiny");
  const model::Config& s = small.config();
  const int64_t table = s.ple_vocab_size * s.n_layers * s.ple_dim * 4;
  EXPECT_LT(decode_bytes(small, kernels::KvType::kF32, 0), all_bytes(small) - table / 2);
  const model::Model mixture = random_model("tinymoe");
  EXPECT_LT(decode_bytes(mixture, kernels::KvType::kF32, 0), all_bytes(mixture));
}

TEST(DecodeBytes, LocalLayersStopGrowingAtTheirWindow) {
  const model::Model m = random_model("tinykv");
  const model::Config& c = m.config();
  int64_t global = 0;
  for (int64_t i = 0; i < c.n_layers; ++i) {
    const model::LayerConfig layer = c.layer(i);
    if (layer.is_global) global += 2 * layer.n_kv_heads * (layer.head_dim + 4);
  }
  const auto at = [&](int64_t position) { return decode_bytes(m, kernels::KvType::kI8, position); };
  EXPECT_EQ(at(1001) - at(1000), global);
  EXPECT_GT(at(1) - at(0), global);
}

}  // namespace
}  // namespace carat::app
