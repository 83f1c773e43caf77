// Whole runs on a tiny model: determinism, stopping and resuming, quantization-aware training.
#include "train/trainer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/half.h"
#include "quant/q4_0.h"
#include "train/checkpoint_io.h"
#include "train/make_tokenizer.h"
#include "train/state.h"
#include "train/tape_test_util.h"

namespace carat::train {
namespace {

namespace fs = std::filesystem;

// Sentences from a small grammar, so that there is something to learn.
std::string sample_text(uint64_t seed, int sentences) {
  const char* who[] = {"Emma", "Anne", "the captain", "her sister", "Mr. Knightley"};
  const char* does[] = {"walked to", "thought of", "wrote about", "remembered"};
  const char* what[] = {"the village", "the letter", "a ball", "Highbury", "the sea", "Bath"};
  Rng rng(seed);
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    text += std::string(who[rng.below(5)]) + " " + does[rng.below(4)] + " " + what[rng.below(6)];
    text += i % 5 == 4 ? ".\n\n" : ". ";
  }
  return text;
}

class TrainerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() /
              ("carat_trainer_" + std::to_string(::getpid()) + "_" + test->name());
    fs::create_directories(folder_);
    write("train.txt", sample_text(1, 900));
    write("held_out.txt", sample_text(2, 150));
    model::Config config = testing::small_config(testing::Kind::kSmall);
    config.vocab_size = config.ple_vocab_size = 416;
    make_tokenizer({path("train.txt")}, 416, path("tokenizer"));
    write("config.json", to_json_text(model::config_to_hf(config)));
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
  }
  std::string read(const std::string& name) const { return read_text_file(path(name), 1 << 28); }

  TrainOptions options() const {
    TrainOptions o;
    o.text_files = {path("train.txt")};
    o.tokenizer = path("tokenizer/tokenizer.json");
    o.config = path("config.json");
    o.batch = 8;
    o.micro_batch = 2;
    o.seq_len = 32;
    o.steps = 10;
    o.learning_rate = 5e-3;
    o.threads = 2;
    return o;
  }

  fs::path folder_;
};

TEST_F(TrainerTest, TenStepsFollowTheRecordedLosses) {
  TrainOptions o = options();
  std::vector<double> losses;
  TrainSink sink;
  sink.progress = [&](const TrainProgress& p) { losses.push_back(p.loss); };
  run_training(o, sink);
  const std::vector<double> recorded = {6.480828, 5.717063, 5.247871, 4.838748, 4.645420,
                                        4.425062, 4.274174, 4.134727, 4.045020, 4.199496};
  ASSERT_EQ(losses.size(), recorded.size());
  for (size_t i = 0; i < losses.size(); ++i) {
    // ISAs and C libraries differ in the last bits.
    EXPECT_NEAR(losses[i], recorded[i], 1e-3) << "step " << i + 1;
  }
}

TEST_F(TrainerTest, ThreadsAndStopsChangeNothing) {
  TrainOptions o = options();
  o.out_dir = path("whole");
  run_training(o, {});
  const std::string whole = read("whole/model.safetensors");

  for (const int threads : {1, 3}) {
    o.threads = threads;
    o.out_dir = path("threads");
    run_training(o, {});
    EXPECT_TRUE(read("threads/model.safetensors") == whole) << threads << " threads";
  }

  o.threads = 2;
  o.out_dir = path("parts");
  o.checkpoint = path("state");
  std::atomic<bool> stop{false};
  TrainSink sink;
  sink.stop = &stop;
  sink.progress = [&](const TrainProgress& p) { stop = p.step == 3 || p.step == 7; };
  int parts = 0;
  for (bool stopped = true; stopped; ++parts) {
    stop = false;
    const TrainResult r = run_training(o, sink);
    stopped = r.stopped;
    EXPECT_EQ(fs::exists(path("parts")), !stopped);
    o.resume = true;
  }
  EXPECT_EQ(parts, 3);
  EXPECT_TRUE(read("parts/model.safetensors") == whole);

  o.learning_rate = 1e-3;
  EXPECT_THROW(run_training(o, sink), Error) << "a checkpoint of another run";
  const std::string state = read("state");
  o.learning_rate = 5e-3;
  write("state", state.substr(0, state.size() - 4));
  EXPECT_THROW(run_training(o, sink), Error) << "cut short";
  write("state", "something else");
  EXPECT_THROW(run_training(o, sink), Error);
}

TEST_F(TrainerTest, AStepIsReportedAsSavedOnceItsCheckpointIsThere) {
  TrainOptions o = options();
  o.checkpoint = path("state");
  o.checkpoint_interval = 4;
  TrainSink sink;
  std::vector<int64_t> saved;
  sink.progress = [&](const TrainProgress& p) {
    if (!p.saved) return;
    saved.push_back(p.step);
    EXPECT_TRUE(fs::exists(path("state")));
  };
  run_training(o, sink);
  EXPECT_EQ(saved, (std::vector<int64_t>{4, 8}));
}

TEST_F(TrainerTest, QuantizationAwareTrainingClosesTheGapAndExportsTheLattice) {
  TrainOptions o = options();
  o.steps = 120;
  o.validation_file = path("held_out.txt");
  o.out_dir = path("teacher");
  const TrainResult teacher = run_training(o, {});
  EXPECT_LT(teacher.last.validation_loss, 2.5);

  TrainOptions q = options();
  q.mode = TrainMode::kQat;
  set_qat_defaults(q);
  q.tokenizer.clear();
  q.config.clear();
  q.teacher = path("teacher");
  q.validation_file = path("held_out.txt");
  q.steps = 60;
  q.learning_rate = 1e-3;
  q.out_dir = path("student");
  const TrainResult r = run_training(q, {});
  EXPECT_GT(r.start_validation_kld, 0);
  EXPECT_LT(r.last.validation_kld, 0.7 * r.start_validation_kld);
  EXPECT_GT(r.last.codes_changed, 0);
  EXPECT_LT(r.last.codes_changed, 0.9);
  EXPECT_GT(r.last.travel, 0);
  EXPECT_EQ(read("student/tokenizer.json"), read("teacher/tokenizer.json"));

  // Every block of the bf16 student is what Q4_0 makes of it, rounded to bf16.
  const model::Model student = model::load_model(path("student"));
  const ParameterLayout layout(student.weights);
  const std::vector<float> values = load_parameters(student.weights, layout);
  for (const auto& e : layout.entries()) {
    for (int64_t i = e.offset; e.matrix && i < e.offset + e.size; i += 32) {
      float decoded[32];
      quant::decode_block_q4_0(quant::encode_block_q4_0(values.data() + i), decoded);
      for (int j = 0; j < 32; ++j) {
        ASSERT_EQ(to_float(to_bf16(decoded[j])), values[static_cast<size_t>(i + j)]);
      }
    }
  }
}

TEST_F(TrainerTest, RunsThatBeginWithAModelGoOnFromTheirCheckpoint) {
  TrainOptions teacher = options();
  teacher.out_dir = path("teacher");
  run_training(teacher, {});
  for (const bool qat : {true, false}) {
    TrainOptions o = options();
    o.config.clear();
    o.tokenizer.clear();
    (qat ? o.teacher : o.init) = path("teacher");
    o.mode = qat ? TrainMode::kQat : TrainMode::kPretrain;
    o.validation_file = path("held_out.txt");
    o.out_dir = path("whole");
    const TrainResult whole = run_training(o, {});

    o.out_dir = path("parts");
    o.checkpoint = path(qat ? "qat.state" : "init.state");
    std::atomic<bool> stop{false};
    TrainSink sink;
    sink.stop = &stop;
    sink.progress = [&](const TrainProgress& p) { stop = p.step == 4; };
    EXPECT_TRUE(run_training(o, sink).stopped);
    o.resume = true;
    stop = false;
    EXPECT_FALSE(run_training(o, sink).stopped);
    EXPECT_TRUE(read("parts/model.safetensors") == read("whole/model.safetensors"));

    // Once more, at its end: nothing is left to do but to say and to write the result.
    const TrainResult again = run_training(o, {});
    EXPECT_EQ(again.last.step, whole.last.step);
    EXPECT_EQ(again.last.validation_loss, whole.last.validation_loss);
    EXPECT_EQ(again.last.validation_kld, whole.last.validation_kld);
    EXPECT_TRUE(read("parts/model.safetensors") == read("whole/model.safetensors"));

    o.seed = 2;
    EXPECT_THROW(run_training(o, {}), Error) << "a checkpoint of another run";
  }
}

TEST_F(TrainerTest, BadOptionsAreErrors) {
  const auto fails = [](TrainOptions o) { EXPECT_THROW(run_training(o, {}), Error); };
  TrainOptions o = options();
  o.text_files.clear();
  fails(o);
  o = options();
  o.tokens = 5;
  fails(o);
  o = options();
  o.micro_batch = 3;
  fails(o);
  o = options();
  o.seq_len = 1000;
  fails(o);
  o = options();
  o.config.clear();
  fails(o);
  o = options();
  o.tokenizer.clear();
  fails(o);
  o = options();
  make_tokenizer(o.text_files, 420, path("other"));
  o.tokenizer = path("other/tokenizer.json");
  fails(o);
  o = options();
  o.resume = true;
  fails(o);
  o = options();
  o.mode = TrainMode::kQat;
  fails(o);
  o = options();
  o.text_files = {path("missing.txt")};
  fails(o);
}

}  // namespace
}  // namespace carat::train
