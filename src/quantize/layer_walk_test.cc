// A walk over the layers shows what a whole forward pass shows, and follows replaced weights.
#include "quantize/layer_walk.h"

#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"
#include "calibrate/read_text.h"
#include "model/testing/random_model.h"
#include "quant/scheme.h"
#include "quantize/live_weights.h"

namespace carat::quantize {
namespace {

using kernels::Weight;
using model::TensorKind;

class Recorder final : public calibrate::InputObserver {
 public:
  bool wants(const Weight& w) const override { return w.id >= 0; }
  void observe(const Weight& w, int64_t matrix, std::span<const float> rows) override {
    auto& seen = rows_[{w.id, matrix}];
    seen.insert(seen.end(), rows.begin(), rows.end());
  }
  std::map<std::pair<int32_t, int64_t>, std::vector<float>> rows_;
};

std::vector<std::vector<int32_t>> some_chunks(int64_t vocab) {
  Rng rng(4);
  std::vector<std::vector<int32_t>> chunks;
  for (const int n : {70, 5, 33}) {
    chunks.emplace_back();
    for (int i = 0; i < n; ++i) {
      chunks.back().push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
    }
  }
  return chunks;
}

void walk_all(const model::Weights& w, std::span<const std::vector<int32_t>> chunks, Recorder& out,
              int threads) {
  ThreadPool pool(threads);
  LayerWalk walk(w, chunks, pool, kernels::choose_kernels());
  for (int64_t i = 0; i < w.config.n_layers; ++i) {
    walk.observe(w, out);
    walk.advance(w);
  }
  walk.observe(w, out);
}

TEST(LayerWalk, ShowsWhatAForwardPassShows) {
  for (const char* size : {"tiny", "tinymoe"}) {
    const model::Weights w =
        model::testing::random_weights(model::config_of_size(size), DType::kQ4_0, DType::kF32);
    const auto chunks = some_chunks(w.config.vocab_size);
    Recorder expected, found, again;
    ThreadPool pool(2);
    calibrate::ReadCall call;
    call.weights = &w;
    call.chunks = chunks;
    calibrate::read_chunks(call, expected, pool, kernels::choose_kernels());
    walk_all(w, chunks, found, 1);
    walk_all(w, chunks, again, 3);
    EXPECT_EQ(expected.rows_.size(), found.rows_.size()) << size;
    EXPECT_TRUE(expected.rows_ == found.rows_) << size;
    EXPECT_TRUE(found.rows_ == again.rows_) << size;
  }
}

// Keys and values take a page of 64 tokens, however few a chunk has.
TEST(LayerWalk, CountsWholePagesOfEachChunk) {
  const model::Config config = model::config_of_size("tiny");
  const model::KvLayout layout(config, kernels::KvType::kF32);
  const int64_t page = layout.layers[0].page.page_bytes();
  const auto bytes = [&](size_t n, size_t tokens) {
    const std::vector<std::vector<int32_t>> chunks(n, std::vector<int32_t>(tokens));
    return LayerWalk::bytes(config, chunks);
  };
  EXPECT_GE(bytes(1, 1), page);
  EXPECT_EQ(bytes(500, 1), 500 * bytes(1, 1));
  EXPECT_GT(bytes(64, 1), bytes(1, 64) + 63 * page);
  EXPECT_GT(bytes(1, 65), bytes(1, 64) + page);
  EXPECT_LT(bytes(1, 64), bytes(1, 63) + page);
}

TEST(LayerWalk, ComputesWithReplacedWeights) {
  const model::Weights w =
      model::testing::random_weights(model::config_of_size("tiny"), DType::kF32, DType::kF32);
  const auto chunks = some_chunks(w.config.vocab_size);
  LiveWeights live(w);
  const Weight& o = w.at(TensorKind::kO, 0);
  std::vector<std::byte> rows(static_cast<size_t>(o.rows * row_bytes(DType::kQ8_0, o.cols)));
  for (int64_t r = 0; r < o.rows; ++r) {
    quant::encode_row(DType::kQ8_0, reinterpret_cast<const float*>(o.data) + r * o.cols,
                      rows.data() + r * row_bytes(DType::kQ8_0, o.cols), o.cols);
  }
  live.replace({TensorKind::kO, 0}, DType::kQ8_0, rows);
  ThreadPool pool(1);
  const auto states = [&](const model::Weights& weights) {
    LayerWalk walk(weights, chunks, pool, kernels::choose_kernels());
    walk.advance(weights);
    const auto s = walk.states(0);
    return std::vector<float>(s.begin(), s.end());
  };
  const auto before = states(w);
  EXPECT_EQ(before.size(), chunks[0].size() * static_cast<size_t>(w.config.dim));
  EXPECT_FALSE(states(live.weights()) == before);
  live.restore({TensorKind::kO, 0});
  EXPECT_TRUE(states(live.weights()) == before);
}

}  // namespace
}  // namespace carat::quantize
