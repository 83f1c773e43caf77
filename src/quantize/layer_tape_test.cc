// A layer on the tape is the layer of inference, and its gradients are those of its results.
#include "quantize/layer_tape.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "model/testing/random_model.h"
#include "quantize/layer_walk.h"

namespace carat::quantize {
namespace {

using model::TensorKind;

std::vector<std::vector<int32_t>> some_chunks(int64_t vocab) {
  Rng rng(4);
  std::vector<std::vector<int32_t>> chunks;
  for (const int n : {70, 5}) {
    chunks.emplace_back();
    for (int i = 0; i < n; ++i) {
      chunks.back().push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
    }
  }
  return chunks;
}

// What layer `walk.layer()` is fed for a chunk.
class Fed {
 public:
  Fed(const LayerWalk& walk, const model::Config& config, const std::vector<int32_t>& tokens,
      size_t chunk) {
    input.tokens = tokens;
    input.x = walk.states(chunk);
    input.embedded = walk.embedded(chunk);
    const model::LayerConfig l = config.layer(walk.layer());
    if (l.owns_kv) return;
    walk.keys_and_values(chunk, l.kv_layer, k_, v_);
    input.k = k_;
    input.v = v_;
  }
  LayerTape::Input input;

 private:
  std::vector<float> k_, v_;
};

double squares(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += double{v} * v;
  return sum;
}

TEST(LayerTape, GivesWhatTheLayerOfInferenceGives) {
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const model::Weights w =
        model::testing::random_weights(model::config_of_size(size), DType::kF32, DType::kF32);
    const auto chunks = some_chunks(w.config.vocab_size);
    ThreadPool pool(2);
    const auto& table = kernels::choose_kernels();
    LayerWalk walk(w, chunks, pool, table), ahead(w, chunks, pool, table);
    for (int64_t layer = 0; layer < w.config.n_layers; ++layer) {
      ahead.advance(w);
      const LayerTape::Part part = {layer, layer + 1, false, 70};
      LayerTape tape(w, part, pool, table);
      for (size_t c = 0; c < chunks.size(); ++c) {
        const Fed fed(walk, w.config, chunks[c], c);
        const double whole = squares(ahead.states(c));
        EXPECT_LT(tape.distance(fed.input, ahead.states(c)), 1e-9 * whole)
            << size << " layer " << layer;
        (void)tape.distance_and_gradient(fed.input, ahead.states(c), 1);
      }
      EXPECT_LE(tape.held(), LayerTape::bytes(w.config, part)) << size << " layer " << layer;
      walk.advance(w);
    }
  }
}

TEST(LayerTape, GradientsAgreeWithDifferences) {
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const model::Weights w =
        model::testing::random_weights(model::config_of_size(size), DType::kF32, DType::kF32);
    const auto chunks = some_chunks(w.config.vocab_size);
    ThreadPool pool(2);
    const auto& table = kernels::choose_kernels();
    LayerWalk walk(w, chunks, pool, table);
    const int64_t last = w.config.n_layers - 1;
    for (int64_t layer = 0; layer < last; ++layer) walk.advance(w);
    const Fed fed(walk, w.config, chunks[1], 1);
    // Nothing is wanted: what is differentiated is the square of what comes out.
    const std::vector<float> wanted(fed.input.x.size(), 0.0f);
    LayerTape tape(w, {last, last + 1, false, 5}, pool, table);
    tape.clear_gradients();
    (void)tape.distance_and_gradient(fed.input, wanted, 1);
    Rng rng(8);
    for (const TensorKind kind :
         {TensorKind::kQ, TensorKind::kO, TensorKind::kGate, TensorKind::kDown, TensorKind::kPleOut,
          TensorKind::kExpertsGateUp, TensorKind::kExpertsDown}) {
      if (w.at(kind, last).empty()) continue;
      const std::span<float> values = tape.values({kind, last});
      const std::span<const float> g = tape.gradients({kind, last});
      const std::vector<float> before(values.begin(), values.end());
      std::vector<float> direction(values.size());
      double want = 0;
      for (size_t i = 0; i < g.size(); ++i) {
        // Along the gradient, with noise: a difference that floats can show.
        direction[i] = g[i] * static_cast<float>(1 + rng.normal());
        want += double{g[i]} * direction[i];
      }
      const double h = 2e-3 * std::sqrt(squares(before) / squares(direction));
      const auto at = [&](double step) {
        for (size_t i = 0; i < values.size(); ++i) {
          values[i] = static_cast<float>(before[i] + step * direction[i]);
        }
        return tape.distance(fed.input, wanted);
      };
      const double found = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
      std::copy(before.begin(), before.end(), values.begin());
      EXPECT_NEAR(found, want, 2e-2 * std::fabs(want)) << size << " " << static_cast<int>(kind);
    }
  }
}

}  // namespace
}  // namespace carat::quantize
