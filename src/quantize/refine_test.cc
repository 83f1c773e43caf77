// Methods that better codes, over whole small models.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/rng.h"
#include "calibrate/read_text.h"
#include "convert/testing/checkpoints.h"
#include "model/load.h"
#include "quant/grid.h"
#include "quantize/auto_round.h"
#include "quantize/layer_tape.h"
#include "quantize/layer_walk.h"
#include "quantize/live_weights.h"
#include "quantize/round.h"
#include "quantize/scale_distill.h"
#include "quantize/start.h"

namespace carat::quantize {
namespace {

using convert::testing::TemporaryFolder;

// A small model on disk, and a job on it with random chunks.
class Bed {
 public:
  Bed(const char* size, DType dtype, int threads = 2)
      : folder_(std::string("refine_") + size + std::to_string(threads)),
        checkpoint_(io::open_checkpoint(write(folder_, size))),
        rows_(checkpoint_, model::config_of(checkpoint_)),
        model_(model::load_model(io::open_checkpoint(folder_ / "hf"))),
        store_(folder_ / "out.gguf"),
        pool_(threads) {
    Rng rng(6);
    for (const int n : {40, 40, 40, 17}) {
      chunks_.emplace_back();
      for (int i = 0; i < n; ++i) {
        chunks_.back().push_back(static_cast<int32_t>(rng.below(400)));
      }
    }
    job_ = std::make_unique<Job>(Job{model_,
                                     rows_,
                                     {},
                                     chunks_,
                                     nullptr,
                                     store_,
                                     int64_t{4} << 30,
                                     pool_,
                                     kernels::choose_kernels(),
                                     {}});
    for (const model::TensorRef ref : model::required_tensors(model_.config())) {
      const model::TensorClass cls = model::row_of(ref.kind).cls;
      if (cls == model::TensorClass::kKeep) continue;
      const Shape shape = model::shape_of(model_.config(), ref);
      const bool table = cls != model::TensorClass::kMatrix;
      const bool whole = shape.back() % info(dtype).block_elements == 0;
      const DType type = table ? DType::kQ8_0 : whole ? dtype : DType::kQ4_1;
      job_->matrices.push_back({ref, model::gguf_name(ref), type, shape});
    }
  }

  Job& job() { return *job_; }
  // So that what is learnt from some chunks is true of all, however few tokens there are.
  void make_chunks_alike() {
    for (auto& chunk : chunks_) chunk = chunks_.front();
  }
  const model::Config& config() const { return model_.config(); }
  const std::vector<std::vector<int32_t>>& chunks() const { return chunks_; }

  std::vector<std::byte> stored(const MatrixPlan& m) const {
    std::vector<std::byte> rows(static_cast<size_t>(*byte_count(m.dtype, m.shape)));
    store_.read(m.name, 0, rows);
    return rows;
  }
  std::vector<std::vector<std::byte>> all_stored() const {
    std::vector<std::vector<std::byte>> all;
    for (const MatrixPlan& m : job_->matrices) all.push_back(stored(m));
    return all;
  }

 private:
  static std::string write(const TemporaryFolder& folder, const char* size) {
    convert::testing::HfCheckpoint c;
    c.folder = folder / "hf";
    c.config = model::config_of_size(size);
    c.rule = convert::testing::Training::kNone;
    convert::testing::write_hf(c);
    return c.folder;
  }

  TemporaryFolder folder_;
  io::Checkpoint checkpoint_;
  SourceRows rows_;
  model::Model model_;
  EncodedStore store_;
  ThreadPool pool_;
  std::vector<std::vector<int32_t>> chunks_;
  std::unique_ptr<Job> job_;
};

AutoRoundOptions few_steps() {
  AutoRoundOptions o;
  o.steps = 8;
  o.batch = 2;
  o.rate = 0.01;
  return o;
}

// Relative distance of a layer that runs on what the store holds, from scratch.
double distance_of(Bed& bed, int64_t layer) {
  const Job& job = bed.job();
  LiveWeights live(job.source.weights);
  for (const MatrixPlan& m : job.matrices) use_encoded(job, m, live);
  LayerWalk source(job.source.weights, job.chunks, job.pool, job.table);
  LayerWalk walk(live.weights(), job.chunks, job.pool, job.table);
  for (int64_t i = 0; i < layer; ++i) {
    source.advance(job.source.weights);
    walk.advance(live.weights());
  }
  source.advance(job.source.weights);
  LayerTape tape(live.weights(), {layer, layer + 1, false, 40}, job.pool, job.table);
  double lost = 0, whole = 0;
  for (size_t c = 0; c < job.chunks.size(); ++c) {
    LayerTape::Input input = {job.chunks[c], walk.states(c), walk.embedded(c), {}, {}};
    std::vector<float> k, v;
    const model::LayerConfig l = bed.config().layer(layer);
    if (!l.owns_kv) {
      walk.keys_and_values(c, l.kv_layer, k, v);
      input.k = k;
      input.v = v;
    }
    lost += tape.distance(input, source.states(c));
    for (const float x : source.states(c)) whole += double{x} * x;
  }
  return std::sqrt(lost / whole);
}

TEST(AutoRound, BettersEveryLayerAndKnowsWhatItEncoded) {
  for (const char* size : {"tiny", "tinymoe"}) {
    Bed bed(size, DType::kQ4_0);
    std::vector<MatrixResult> results = round_all(bed.job());
    std::vector<Refinement> refined;
    run_auto_round(bed.job(), few_steps(), results, refined);
    ASSERT_EQ(static_cast<int64_t>(refined.size()), bed.config().n_layers);
    int64_t bettered = 0;
    for (int64_t layer = 0; layer < bed.config().n_layers; ++layer) {
      const Refinement& r = refined[static_cast<size_t>(layer)];
      EXPECT_LE(r.after, r.before) << size << " " << r.what;
      bettered += r.after < r.before;
      EXPECT_NEAR(distance_of(bed, layer), r.after, 1e-6 * r.after) << size << " " << r.what;
    }
    EXPECT_GE(bettered, bed.config().n_layers - 1) << size;
    for (const MatrixResult& r : results) {
      EXPECT_EQ(r.method == "auto_round", r.name.starts_with("blk.")) << r.name;
    }
  }
}

TEST(AutoRound, GivesTheSameBytesForEveryNumberOfThreads) {
  std::vector<std::vector<std::byte>> one;
  for (const int threads : {1, 3}) {
    Bed bed("tiny", DType::kQ4_K, threads);
    std::vector<MatrixResult> results = round_all(bed.job());
    std::vector<Refinement> refined;
    AutoRoundOptions o = few_steps();
    o.steps = 3;
    run_auto_round(bed.job(), o, results, refined);
    if (threads == 1) one = bed.all_stored();
    EXPECT_TRUE(one == bed.all_stored());
  }
}

TEST(AutoRound, KeepsLayersThatDoNotFitInMemory) {
  Bed bed("tiny", DType::kQ4_0);
  std::vector<MatrixResult> results = round_all(bed.job());
  const auto before = bed.all_stored();
  std::vector<Refinement> refined;
  bed.job().memory = 4'000'000;  // the states, and no layer
  run_auto_round(bed.job(), few_steps(), results, refined);
  EXPECT_TRUE(refined.empty());
  EXPECT_TRUE(before == bed.all_stored());
  for (const MatrixResult& r : results) EXPECT_NE(r.method, "auto_round");
  bed.job().memory = 1000;
  EXPECT_THROW(run_auto_round(bed.job(), few_steps(), results, refined), Error);
  bed.job().memory = int64_t{4} << 30;
  const std::atomic<bool> stop{true};
  bed.job().stop = &stop;
  EXPECT_THROW(run_auto_round(bed.job(), few_steps(), results, refined), Interrupted);
}

// Nothing was made yet when the memory turns out to be too little.
TEST(AutoRound, KnowsItsMemoryBeforeItsStartIsMade) {
  Bed bed("tiny", DType::kQ4_0);
  int64_t calls = 0;
  bed.job().progress = [&](int64_t, int64_t, const std::string&) { ++calls; };
  const int64_t states = LayerWalk::bytes(bed.config(), bed.chunks());
  bed.job().memory = states * 3 / 2;  // enough for feedback
  std::vector<Refinement> refined;
  EXPECT_THROW((void)auto_round(bed.job(), {}, refined), Error);
  RefineOptions round;
  round.start = Start::kRound;
  EXPECT_THROW((void)auto_round(bed.job(), round, refined), Error);
  bed.job().memory = states / 2;
  EXPECT_THROW((void)run_feedback(bed.job(), {}), Error);
  EXPECT_EQ(calls, 0);
}

TEST(ScaleDistillation, UndoesWhatWasDoneToScalesAndLeavesCodes) {
  const DType dtype = DType::kQ4_K;  // and Q4_1, which has offsets too, where rows are narrow
  Bed bed("tiny", dtype);
  bed.make_chunks_alike();
  std::vector<MatrixResult> results = round_all(bed.job());
  const auto whole = bed.all_stored();
  Rng rng(2);
  for (const MatrixPlan& m : bed.job().matrices) {
    if (m.ref.layer < 0) continue;
    std::vector<std::byte> rows = bed.stored(m);
    const auto block = static_cast<size_t>(info(m.dtype).block_bytes);
    for (size_t at = 0; at < rows.size(); at += block) {
      quant::BlockScales s = quant::read_scales(m.dtype, rows.data() + at);
      s.d *= static_cast<float>(0.6 + 0.8 * rng.uniform());
      quant::write_scales(m.dtype, s, rows.data() + at);
    }
    bed.job().store.put(m.name, m.dtype, m.shape, 0, rows);
  }
  ScaleOptions o;
  o.steps = 40;
  o.batch = 1;
  o.rate = 0.01;
  std::vector<Refinement> refined;
  run_scale_distillation(bed.job(), o, results, refined);
  ASSERT_EQ(refined.size(), 1u);
  EXPECT_LT(refined[0].after, 0.5 * refined[0].before);
  for (size_t i = 0; i < bed.job().matrices.size(); ++i) {
    const MatrixPlan& m = bed.job().matrices[i];
    std::vector<std::byte> rows = bed.stored(m);
    EXPECT_EQ(rows == whole[i], m.ref.layer < 0 && m.ref.kind != model::TensorKind::kPleProjection)
        << m.name;
    for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(info(m.dtype).block_bytes)) {
      quant::write_scales(m.dtype, quant::read_scales(m.dtype, whole[i].data() + at),
                          rows.data() + at);
    }
    EXPECT_TRUE(rows == whole[i]) << m.name << " has other codes";
  }
}

// A step so large that it only does harm.
TEST(ScaleDistillation, KeepsTheBestThatItSawNotTheLast) {
  Bed bed("tiny", DType::kQ4_0);
  std::vector<MatrixResult> results = round_all(bed.job());
  const auto before = bed.all_stored();
  ScaleOptions o;
  o.steps = 1;
  o.batch = 1;
  o.rate = 0.8;
  std::vector<Refinement> refined;
  run_scale_distillation(bed.job(), o, results, refined);
  ASSERT_EQ(refined.size(), 1u);
  EXPECT_GT(refined[0].before, 0);
  EXPECT_EQ(refined[0].after, refined[0].before);
  EXPECT_TRUE(bed.all_stored() == before);
  for (const MatrixResult& r : results) EXPECT_EQ(r.method, "round") << r.name;
}

TEST(ScaleDistillation, GivesTheSameBytesForEveryNumberOfThreads) {
  std::vector<std::vector<std::byte>> one;
  for (const int threads : {1, 3}) {
    Bed bed("tinymoe", DType::kQ4_0, threads);
    std::vector<MatrixResult> results = round_all(bed.job());
    std::vector<Refinement> refined;
    ScaleOptions o;
    o.steps = 3;
    run_scale_distillation(bed.job(), o, results, refined);
    if (threads == 1) one = bed.all_stored();
    EXPECT_TRUE(one == bed.all_stored());
  }
}

TEST(ScaleDistillation, SaysHowMuchMemoryItNeedsBeforeItTakesAny) {
  Bed bed("tiny", DType::kQ4_0);
  bed.job().memory = 10'000'000;
  try {
    check_scale_distillation(bed.job());
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("MB"), std::string::npos) << e.what();
  }
  bed.job().memory = int64_t{4} << 30;
  check_scale_distillation(bed.job());
  bed.job().chunks = bed.job().chunks.subspan(0, 1);
  EXPECT_THROW(check_scale_distillation(bed.job()), Error);
}

}  // namespace
}  // namespace carat::quantize
