// Observation and what is summed of it, on random models.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <set>
#include <string>

#include "base/error.h"
#include "base/rng.h"
#include "calibrate/importance.h"
#include "calibrate/read_text.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/advance.h"
#include "model/kv_cache.h"
#include "model/testing/random_model.h"
#include "quant/scheme.h"

namespace carat::calibrate {
namespace {

using kernels::Weight;
using model::TensorKind;

std::vector<int32_t> some_tokens(int64_t n, int64_t vocab) {
  Rng rng(8);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) {
    tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
  }
  return tokens;
}

model::Weights random_model(const char* size, DType matrix) {
  return model::testing::random_weights(model::config_of_size(size), matrix, DType::kF32);
}

// Keeps everything.
class Recorder final : public InputObserver {
 public:
  bool wants(const Weight& w) const override { return w.id >= 0; }
  void observe(const Weight& w, int64_t matrix, std::span<const float> rows) override {
    auto& seen = rows_[{w.id, matrix}];
    seen.insert(seen.end(), rows.begin(), rows.end());
  }
  const std::vector<float>& rows(const Weight& w, int64_t matrix = 0) const {
    static const std::vector<float> kNone;
    const auto at = rows_.find({w.id, matrix});
    return at == rows_.end() ? kNone : at->second;
  }

 private:
  std::map<std::pair<int32_t, int64_t>, std::vector<float>> rows_;
};

std::vector<float> logits(const model::Weights& w, kernels::Ops& ops,
                          const std::vector<int32_t>& tokens) {
  model::KvSequence sequence(w.config, kernels::KvType::kF32,
                             model::KvPagePool::create(int64_t{1} << 28));
  const model::Chunk chunk{&sequence, tokens, model::Chunk::Wanted::kAll};
  const kernels::Value y = model::advance(w, ops, std::span(&chunk, 1));
  std::vector<float> out(static_cast<size_t>(y->rows * y->cols));
  ops.read(y, out);
  return out;
}

TEST(ObservedOps, LogitsAreTheSameBits) {
  for (const char* size : {"tiny", "tinymoe"}) {
    for (const DType type : {DType::kQ4_0, DType::kBF16}) {
      const model::Weights w = random_model(size, type);
      const auto tokens = some_tokens(70, w.config.vocab_size);
      ThreadPool pool(2);
      kernels::CpuOps plain(pool), inner(pool);
      Recorder recorder;
      ObservedOps observed(inner, recorder);
      EXPECT_TRUE(logits(w, plain, tokens) == logits(w, observed, tokens)) << size;
      EXPECT_EQ(recorder.rows(w.at(TensorKind::kO, 0)).size(),
                static_cast<size_t>(70 * w.at(TensorKind::kO, 0).cols));
    }
  }
}

// An Ops of linear alone, to compare what was seen with what comes out.
std::vector<float> times(const std::vector<float>& rows, const Weight& w, int64_t matrix = 0) {
  ThreadPool pool(1);
  kernels::CpuOps ops(pool);
  Weight one = w;
  one.count = 1;
  one.data += matrix * w.matrix_size();
  const auto n = static_cast<int64_t>(rows.size()) / w.cols;
  const kernels::Value y = ops.linear(ops.input(n, w.cols, rows), one);
  std::vector<float> out(static_cast<size_t>(n * w.rows));
  ops.read(y, out);
  return out;
}

// Follows values through the network by the products between them.
TEST(ObservedOps, SeesWhatProductsAreFed) {
  const model::Weights w = random_model("tiny", DType::kF32);
  const auto tokens = some_tokens(20, w.config.vocab_size);
  ThreadPool pool(1);
  kernels::CpuOps inner(pool);
  Recorder seen;
  ObservedOps ops(inner, seen);
  const std::vector<float> y = logits(w, ops, tokens);
  const auto at = [&](TensorKind kind) -> const Weight& { return w.at(kind, 0); };
  EXPECT_EQ(seen.rows(at(TensorKind::kQ)), seen.rows(at(TensorKind::kK)));
  EXPECT_EQ(seen.rows(at(TensorKind::kGate)), seen.rows(at(TensorKind::kUp)));
  EXPECT_NE(seen.rows(at(TensorKind::kQ)), seen.rows(at(TensorKind::kGate)));
  // down's input is geglu of the products of gate and up.
  const kernels::Value hidden =
      inner.gated(inner.input(20, at(TensorKind::kGate).cols, seen.rows(at(TensorKind::kGate))),
                  at(TensorKind::kGate), at(TensorKind::kUp));
  std::vector<float> expected(static_cast<size_t>(hidden->rows * hidden->cols));
  inner.read(hidden, expected);
  EXPECT_TRUE(seen.rows(at(TensorKind::kDown)) == expected);
  // The output matrix's input gives the logits, but for the softcap.
  const Weight& output = w.at(TensorKind::kTokenEmbedding);
  std::vector<float> before = times(seen.rows(output), output);
  const float cap = w.config.final_softcap;
  ASSERT_EQ(before.size(), y.size());
  for (size_t i = 0; i < y.size(); i += 97) {
    EXPECT_NEAR(cap > 0 ? cap * std::tanh(before[i] / cap) : before[i], y[i], 1e-4);
  }
  // The projection of per-layer inputs is multiplied a slice a layer, and seen once.
  const Weight& projection = w.at(TensorKind::kPleProjection);
  EXPECT_EQ(seen.rows(projection).size(), static_cast<size_t>(20 * projection.cols));
}

TEST(ObservedOps, SeesTheRowsOfEachExpert) {
  const model::Weights w = random_model("tinymoe", DType::kF32);
  const auto tokens = some_tokens(40, w.config.vocab_size);
  ThreadPool pool(1);
  kernels::CpuOps inner(pool);
  Recorder seen;
  ObservedOps ops(inner, seen);
  (void)logits(w, ops, tokens);
  const Weight& gate_up = w.at(TensorKind::kExpertsGateUp, 1);
  const Weight& down = w.at(TensorKind::kExpertsDown, 1);
  size_t routed = 0;
  for (int64_t e = 0; e < gate_up.count; ++e) {
    const auto& x = seen.rows(gate_up, e);
    const size_t n = x.size() / static_cast<size_t>(gate_up.cols);
    routed += n;
    ASSERT_EQ(seen.rows(down, e).size(), n * static_cast<size_t>(down.cols)) << e;
    if (n == 0) continue;
    // geglu of the expert's own product, in double.
    const std::vector<float> both = times(x, gate_up, e);
    const auto width = static_cast<size_t>(down.cols);
    for (size_t i = 0; i < n * width; i += 7) {
      const double g = both[i / width * 2 * width + i % width];
      const double u = both[(i / width * 2 + 1) * width + i % width];
      const double gelu = g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)));
      EXPECT_NEAR(seen.rows(down, e)[i], gelu * u, 1e-5 * (1 + std::abs(gelu * u)));
    }
  }
  EXPECT_EQ(routed, static_cast<size_t>(40 * w.config.n_experts_active));
}

TEST(CalibrationChunks, AreCutLikeAnAudits) {
  std::vector<int32_t> text;
  for (int32_t i = 10; i < 110; ++i) text.push_back(i);
  const auto cut = [&](int64_t context, int64_t most) {
    return calibration_chunks(text, 2, {.context = context, .max_tokens = most});
  };
  const auto all = cut(41, 0);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].size(), 41u);
  EXPECT_EQ(all[1][0], 2);
  EXPECT_EQ(all[1][1], 50);
  EXPECT_EQ(all[2].size(), 21u);
  EXPECT_EQ(cut(46, 0).size(), 2u);  // 10 tokens are left over
  EXPECT_EQ(cut(41, 42).size(), 2u);
  EXPECT_EQ(cut(41, 41).size(), 1u);
  EXPECT_EQ(cut(4096, 0).size(), 1u);
  EXPECT_TRUE(calibration_chunks({}, 2, {}).empty());
}

// All entries as sums in double of what a recorder sees.
TEST(SquareSums, AreTheSumsOfWhatWasSeenForAnyNumberOfThreads) {
  for (const char* size : {"tiny", "tinymoe"}) {
    const model::Weights w = random_model(size, DType::kQ4_0);
    const auto chunks =
        calibration_chunks(some_tokens(150, w.config.vocab_size), 2, {.context = 64});
    ReadCall call;
    call.weights = &w;
    call.chunks = chunks;
    Recorder recorder;
    ThreadPool one(1), three(3);
    const auto& table = kernels::choose_kernels();
    read_chunks(call, recorder, one, table);
    SquareSums sums(w, one), same(w, three);
    read_chunks(call, sums, one, table);
    int64_t told = 0;
    call.progress = [&](int64_t done, int64_t total) {
      told = done;
      EXPECT_EQ(total, 153);
    };
    read_chunks(call, same, three, table);
    EXPECT_EQ(told, 153);
    const auto entries = sums.entries(), others = same.entries();
    ASSERT_EQ(entries.size(), others.size());
    std::set<std::string> names;
    for (size_t i = 0; i < entries.size(); ++i) {
      names.insert(entries[i].name);
      EXPECT_TRUE(entries[i].sums == others[i].sums) << entries[i].name;
      EXPECT_TRUE(entries[i].counts == others[i].counts);
    }
    for (const Weight& weight : w.all) {
      const model::TensorRef ref = w.refs[static_cast<size_t>(weight.id)];
      if (!names.contains(model::gguf_name(ref))) {
        EXPECT_TRUE(recorder.rows(weight).empty());
        const auto cls = model::row_of(ref.kind).cls;
        EXPECT_TRUE(cls == model::TensorClass::kKeep || cls == model::TensorClass::kPleTable)
            << model::gguf_name(ref);
        continue;
      }
      io::Imatrix m;
      m.entries = entries;
      const io::ImatrixEntry& e = *m.find(model::gguf_name(ref));
      for (int64_t k = 0; k < weight.count; ++k) {
        const auto& rows = recorder.rows(weight, k);
        const auto cols = static_cast<size_t>(weight.cols);
        EXPECT_EQ(e.counts[static_cast<size_t>(k)], static_cast<float>(rows.size() / cols));
        for (size_t c = 0; c < cols; c += 5) {
          double sum = 0;
          for (size_t r = c; r < rows.size(); r += cols) sum += double{rows[r]} * rows[r];
          EXPECT_FLOAT_EQ(e.sums[static_cast<size_t>(k) * cols + c], static_cast<float>(sum));
        }
      }
    }
  }
}

TEST(ReadChunks, RefusesWhatTheContextDoesNotHoldAndStops) {
  const model::Weights w = random_model("tiny", DType::kQ4_0);
  ThreadPool pool(1);
  Recorder recorder;
  const std::vector<std::vector<int32_t>> chunks = {
      std::vector<int32_t>(static_cast<size_t>(w.config.max_seq_len) + 1, 3)};
  ReadCall call;
  call.weights = &w;
  call.chunks = chunks;
  EXPECT_THROW(read_chunks(call, recorder, pool, kernels::choose_kernels()), Error);
  const std::vector<std::vector<int32_t>> few = {{2, 3, 4}};
  const std::atomic<bool> stop{true};
  call.chunks = few;
  call.stop = &stop;
  EXPECT_THROW(read_chunks(call, recorder, pool, kernels::choose_kernels()), Interrupted);
}

}  // namespace
}  // namespace carat::calibrate
