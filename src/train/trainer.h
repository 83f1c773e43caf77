// Training of a text model: from scratch or from a checkpoint (cross-entropy), and
// quantization-aware training against a frozen teacher (KL divergence, Q4_0 weights).
//
// The same options, text and seed give bit-identical weights on one ISA, whatever the number of
// threads and however often the run was stopped and resumed.
//
//   TrainOptions options;
//   options.config = "models/nano/config.json";
//   options.tokenizer = "tokenizer.json";
//   options.text_files = {"a.txt", "b.txt"};
//   options.validation_file = "held_out.txt";
//   options.tokens = 6'000'000;
//   options.out_dir = "teacher";
//   train::run_training(options, sink);
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace carat::train {

enum class TrainMode : uint8_t {
  kPretrain,  // cross-entropy with the text; fresh weights or `init`
  kQat,       // KL(teacher || student), student weights on the Q4_0 lattice, starts at the teacher
};

struct TrainOptions {
  TrainMode mode = TrainMode::kPretrain;

  // What to learn from. Plain UTF-8 text.
  std::vector<std::string> text_files;
  std::string validation_file;  // held out; empty: no evaluation
  std::string tokenizer;        // tokenizer.json; empty: the one beside `init` or `teacher`

  // What to train. Pre-training takes `config` (a config.json or a name of config_of_size) or
  // `init` (a Hugging Face directory to go on from); QAT takes `teacher` (a Hugging Face
  // directory), and starts from it unless `init` is given too.
  std::string config;
  std::string init;
  std::string teacher;

  // Where the result goes: a Hugging Face directory (bf16), written when training ends.
  std::string out_dir;

  // How long: `steps`, or as many steps as see `tokens` tokens. Exactly one is above 0.
  int64_t steps = 0;
  int64_t tokens = 0;
  int64_t batch = 16;       // sequences a step
  int64_t micro_batch = 8;  // sequences in memory at once; divides batch
  int64_t seq_len = 256;    // tokens a sequence, <bos> included

  // AdamW. Learning rate: linear warm-up to `learning_rate`, then cosine to
  // `learning_rate * final_lr_ratio` at the last step.
  double learning_rate = 3e-3;
  double final_lr_ratio = 0.05;
  int64_t warmup_steps = 0;   // 0: 5 % of the steps
  double weight_decay = 0.1;  // on matrices only; QAT wants 0
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip_norm = 1.0;  // of the whole gradient; 0: no clipping

  uint64_t seed = 1;
  int threads = 0;  // 0: all processors this process may use

  // State for an exact continuation: weights, moments, step, generator, place in the data. Written
  // every `checkpoint_interval` steps and when the run is stopped.
  std::string checkpoint;  // file; empty: none
  int64_t checkpoint_interval = 200;
  bool resume = false;  // go on from `checkpoint`, which must exist and fit these options

  int64_t eval_interval = 0;    // steps between evaluations; 0: only at the end
  int64_t eval_tokens = 65536;  // of the held-out text per evaluation during training; the last
                                // evaluation sees all of it
};

// Options that suit QAT where they differ from pre-training's defaults (learning rate, weight
// decay, final ratio). Paths, length and seed are left as they are.
void set_qat_defaults(TrainOptions& options);

struct TrainProgress {
  int64_t step = 0;        // finished steps
  int64_t steps = 0;       // planned
  int64_t tokens = 0;      // seen so far
  double loss = 0;         // nats a token, of this step's batch
  double smooth_loss = 0;  // running mean
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;  // since this run began
  double gflops = 0;             // matrix products, forward and backward, since this run began
  double seconds_left = 0;
  // QAT only: how far weights can have moved in units of a quantization step, and how many have
  // another code than the starting weights (measured at evaluations, else the last figure).
  double travel = 0;         // sum of learning rates / median |step|
  double codes_changed = 0;  // share of weights
  bool saved = false;        // the checkpoint holds this step (the last one's follows it)
  // Filled at evaluations.
  bool evaluated = false;
  double validation_loss = 0;  // cross-entropy in nats a token (QAT: of the quantized student)
  double validation_kld = 0;   // QAT: mean KL(teacher || student) in nats a token
};

// Where a run talks to. Members may be empty.
struct TrainSink {
  std::function<void(const std::string&)> note;
  std::function<void(const TrainProgress&)> progress;  // after every step
  const std::atomic<bool>* stop = nullptr;  // set from a signal handler: finish the step, save, end
};

struct TrainResult {
  TrainProgress last;
  double seconds = 0;    // of this run
  bool stopped = false;  // by `stop`: state is in the checkpoint, out_dir was not written
  double teacher_validation_loss = 0;  // QAT
  // QAT: round-to-nearest of the starting weights; 0 where the run was resumed.
  double start_validation_kld = 0;
};

// Runs to the end or to a stop. Throws Error for bad options, files and checkpoints.
TrainResult run_training(const TrainOptions& options, const TrainSink& sink);

}  // namespace carat::train
