#include "train/trainer.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <system_error>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "model/forward.h"
#include "train/adamw.h"
#include "train/checkpoint_io.h"
#include "train/data.h"
#include "train/fake_quant.h"
#include "train/initial.h"
#include "train/state.h"
#include "train/tape.h"

namespace carat::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

[[noreturn]] void bad_option(const char* what, const char* place, std::string expected) {
  throw Error({what, {}, place, std::move(expected), {}, {}});
}

void check_options(const TrainOptions& o) {
  if (o.text_files.empty()) bad_option("there is no text to train on", "text", "at least one file");
  if ((o.steps > 0) == (o.tokens > 0)) {
    bad_option("the length of the run is not clear", "steps, tokens", "exactly one above 0");
  }
  if (o.batch < 1 || o.micro_batch < 1 || o.batch % o.micro_batch != 0) {
    bad_option("the batch is not a number of micro-batches", "batch, micro_batch",
               "micro_batch divides batch");
  }
  if (o.seq_len < 2) bad_option("the sequences are too short", "seq_len", "at least 2");
  if (o.batch > (int64_t{1} << 32) / o.seq_len) {
    bad_option("the batch is too large", "batch", "at most 2^32 tokens");
  }
  if (!(o.learning_rate > 0) || !(o.beta1 >= 0 && o.beta1 < 1) || !(o.beta2 >= 0 && o.beta2 < 1) ||
      !(o.epsilon > 0) || o.weight_decay < 0 || o.clip_norm < 0 || o.warmup_steps < 0) {
    bad_option("an option of the optimizer is out of range", "learning_rate, beta1, beta2, ...",
               "rates above 0, betas in [0, 1)");
  }
  if (o.resume && o.checkpoint.empty()) bad_option("nothing to resume", "checkpoint", "a file");
  if (o.mode == TrainMode::kQat && o.teacher.empty()) {
    bad_option("quantization-aware training needs a teacher", "teacher", "a model directory");
  }
  if (o.mode == TrainMode::kPretrain && o.config.empty() == o.init.empty()) {
    bad_option("the model to train is not clear", "config, init", "exactly one of them");
  }
}

model::Config read_config(const std::string& name) {
  std::error_code code;
  if (std::filesystem::is_regular_file(name, code)) {
    return model::config_from_hf(read_json_file(name));
  }
  return model::config_of_size(name);
}

std::string text_if_there(const std::string& folder, const char* name) {
  const auto path = std::filesystem::path(folder) / name;
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) return {};
  return read_text_file(path.string(), int64_t{1} << 29);
}

// Rows of a batch, as the forward pass wants them.
struct Rows {
  std::vector<kernels::RowRef> rows;
  std::vector<int32_t> wanted;

  Rows(const Batch& batch, int64_t length) {
    for (int64_t s = 0; s < batch.sequences; ++s) {
      for (int64_t p = 0; p < length; ++p) {
        wanted.push_back(static_cast<int32_t>(rows.size()));
        rows.push_back({static_cast<int32_t>(s), static_cast<int32_t>(p)});
      }
    }
  }
  model::Step step(const Batch& batch) const {
    model::Step s;
    s.tokens = batch.tokens;
    s.rows = rows;
    s.wanted = wanted;
    return s;
  }
};

// What all workers share.
struct Job {
  const model::Weights& shapes;
  const ParameterLayout& layout;
  int64_t seq_len;
  const float* values;   // what the forward pass reads
  const float* teacher;  // or null
};

// One micro-batch at a time: its own tapes and gradients, so that several run side by side without
// waiting for each other, and so that a micro-batch's gradient does not depend on who made it.
class Worker {
 public:
  struct Sums {
    double loss = 0, kld = 0, teacher_loss = 0, flops = 0;
  };
  // Works on the threads of `shared`, or alone.
  Worker(const Job& job, ThreadPool* shared);

  // Loss summed over the tokens, and weight times its gradient.
  void train(const Batch& batch, double weight);
  // Cross-entropy, and with a teacher KL and the teacher's cross-entropy, summed over the tokens.
  void evaluate(const Batch& batch);

  const Sums& sums() const { return sums_; }
  const std::vector<float>& gradients() const { return gradients_; }

 private:
  double flops() const { return tape_->flops() + (teacher_ ? teacher_->flops() : 0); }

  std::unique_ptr<ThreadPool> own_;
  const Job& job_;
  std::vector<float> gradients_;
  std::unique_ptr<Tape<float>> tape_, still_, teacher_;
  Sums sums_;
};

// One run: everything it works on.
class Run {
 public:
  Run(const TrainOptions& options, const TrainSink& sink)
      : options_(options),
        sink_(sink),
        pool_(options.threads > 0 ? options.threads : ThreadPool::available_processors()) {}

  TrainResult go();

 private:
  bool qat() const { return options_.mode == TrainMode::kQat; }
  bool stop_requested() const { return sink_.stop && sink_.stop->load(); }
  void note(const std::string& text) const {
    if (sink_.note) sink_.note(text);
  }

  void open_models();
  void open_tokenizer();
  void open_data();
  Json fingerprint() const;
  void start_state();
  // What the forward pass reads: the weights themselves, or their quantized values.
  const float* forward_values();
  // Runs f(worker, k) for micro-batches k < n, several at a time, and done(worker) in their order.
  template <class F, class Done>
  void for_micro_batches(int64_t n, F&& f, Done&& done);
  double step();
  void evaluate(bool whole);
  void update_progress();
  void save() const { save_state(options_.checkpoint, fingerprint_, state_); }
  void export_model();

  const TrainOptions& options_;
  const TrainSink& sink_;
  ThreadPool pool_;

  model::Weights shapes_;
  ParameterLayout layout_;
  std::vector<float> start_;    // weights before the first step
  Json fingerprint_;            // taken while start_ is still there
  std::vector<float> teacher_;  // QAT
  std::string texts_from_;      // model directory whose tokenizer and defaults are kept
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<TrainingData> data_;
  std::unique_ptr<HeldOutData> held_out_;

  TrainState state_;
  std::vector<float> gradients_, quantized_;
  std::unique_ptr<Job> job_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<uint8_t> start_codes_;
  double median_scale_ = 0;

  int64_t steps_ = 0, warmup_ = 0, first_step_ = 0;
  Clock::time_point started_, training_started_;
  double evaluation_seconds_ = 0, flops_ = 0;
  TrainProgress progress_;
  TrainResult result_;
};

void Run::open_models() {
  const std::string& from = !options_.init.empty() ? options_.init : options_.teacher;
  model::Config config;
  if (from.empty()) {
    config = read_config(options_.config);
  } else {
    const model::Model start = model::load_model(from);
    config = start.config();
    shapes_ = shapes_only(config);
    layout_ = ParameterLayout(shapes_);
    start_ = load_parameters(start.weights, layout_);
    tokenizer_ = start.tokenizer;
    texts_from_ = from;
  }
  if (from.empty()) {
    shapes_ = shapes_only(config);
    layout_ = ParameterLayout(shapes_);
    start_.resize(static_cast<size_t>(layout_.total()));
    initialise(shapes_, layout_, options_.seed, start_.data());
  }
  if (options_.seq_len > config.max_seq_len) {
    throw Error({"the sequences are longer than the model's context",
                 {},
                 "seq_len",
                 "at most " + std::to_string(config.max_seq_len),
                 std::to_string(options_.seq_len),
                 {}});
  }
  if (!qat()) return;
  check_quantizable(shapes_);
  const model::Model teacher = model::load_model(options_.teacher);
  if (!(teacher.config() == config)) {
    throw Error({"teacher and student have different shapes",
                 options_.teacher,
                 "config.json",
                 "the configuration of " + from,
                 {},
                 {}});
  }
  teacher_ = load_parameters(teacher.weights, layout_);
}

void Run::open_tokenizer() {
  if (!options_.tokenizer.empty()) {
    tokenizer_ = std::make_shared<text::Tokenizer>(text::read_tokenizer_json(options_.tokenizer));
  }
  if (!tokenizer_) {
    throw Error({"there is no tokenizer", texts_from_, "tokenizer", "a tokenizer.json", {}, {}});
  }
  if (tokenizer_->vocab().size() != shapes_.config.vocab_size) {
    throw Error({"the tokenizer does not fit the model",
                 {},
                 "vocab_size",
                 std::to_string(shapes_.config.vocab_size) + " entries",
                 std::to_string(tokenizer_->vocab().size()) + " entries",
                 {}});
  }
}

void Run::open_data() {
  const int32_t bos = tokenizer_->vocab().special.bos;
  data_ = std::make_unique<TrainingData>(tokenize_files(options_.text_files, *tokenizer_),
                                         options_.seq_len, bos, options_.seed);
  note("training text: " + std::to_string(data_->token_count()) + " tokens");
  if (!options_.validation_file.empty()) {
    held_out_ = std::make_unique<HeldOutData>(
        tokenize_files({options_.validation_file}, *tokenizer_), options_.seq_len, bos);
    if (held_out_->sequences() < 1) {
      throw Error({"the held-out text is too short",
                   options_.validation_file,
                   {},
                   std::to_string(options_.seq_len) + " tokens",
                   {},
                   {}});
    }
  }
  const int64_t per_step = options_.batch * options_.seq_len;
  steps_ = options_.steps > 0 ? options_.steps : ceil_div(options_.tokens, per_step);
  warmup_ = options_.warmup_steps > 0 ? options_.warmup_steps : ceil_div(steps_, 20);
}

// FNV-1a over the weights' bits, as text: JSON numbers need not hold 64 bits.
std::string hash_of(const std::vector<float>& weights) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const float w : weights) hash = (hash ^ std::bit_cast<uint32_t>(w)) * 0x100000001b3u;
  return std::to_string(hash);
}

Json Run::fingerprint() const {
  Json j;
  j["mode"] = qat() ? "qat" : "pretrain";
  j["config"] = model::config_to_hf(shapes_.config);
  j["steps"] = steps_;
  j["batch"] = options_.batch;
  j["micro_batch"] = options_.micro_batch;
  j["seq_len"] = options_.seq_len;
  j["learning_rate"] = options_.learning_rate;
  j["final_lr_ratio"] = options_.final_lr_ratio;
  j["warmup_steps"] = warmup_;
  j["weight_decay"] = options_.weight_decay;
  j["beta1"] = options_.beta1;
  j["beta2"] = options_.beta2;
  j["epsilon"] = options_.epsilon;
  j["clip_norm"] = options_.clip_norm;
  j["seed"] = options_.seed;
  j["text"] = data_->fingerprint();
  if (!texts_from_.empty()) j["start"] = hash_of(start_);
  if (qat()) j["teacher"] = hash_of(teacher_);
  return j;
}

void Run::start_state() {
  const int64_t n = layout_.total();
  fingerprint_ = fingerprint();
  if (options_.resume) {
    state_ = load_state(options_.checkpoint, fingerprint_, n);
    note("resumed at step " + std::to_string(state_.step));
  } else {
    state_.weights = start_;
    state_.m.assign(static_cast<size_t>(n), 0.0f);
    state_.v.assign(static_cast<size_t>(n), 0.0f);
  }
  first_step_ = state_.step;
  gradients_.resize(static_cast<size_t>(n));
  const float* values = state_.weights.data();
  if (qat()) {
    quantized_.resize(static_cast<size_t>(n));
    values = quantized_.data();
    start_codes_ = quant_codes(layout_, start_.data(), pool_);
    median_scale_ = median_scale(layout_, start_.data());
  }
  start_.clear();
  start_.shrink_to_fit();
  job_ = std::make_unique<Job>(
      Job{shapes_, layout_, options_.seq_len, values, qat() ? teacher_.data() : nullptr});
  // One micro-batch a step: its rows are what threads share. Else each thread has its own.
  const int64_t micro_batches = options_.batch / options_.micro_batch;
  const int64_t n_workers = std::min<int64_t>(pool_.size(), micro_batches);
  for (int64_t i = 0; i < n_workers; ++i) {
    workers_.push_back(std::make_unique<Worker>(*job_, n_workers == 1 ? &pool_ : nullptr));
  }
}

template <class F, class Done>
void Run::for_micro_batches(int64_t n, F&& f, Done&& done) {
  const auto width = static_cast<int64_t>(workers_.size());
  for (int64_t first = 0; first < n; first += width) {
    const int64_t count = std::min(width, n - first);
    if (width == 1) {
      f(*workers_[0], first);
    } else {
      pool_.parallel_for(count, 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) f(*workers_[static_cast<size_t>(i)], first + i);
      });
    }
    for (int64_t i = 0; i < count; ++i) done(*workers_[static_cast<size_t>(i)]);
  }
}

const float* Run::forward_values() {
  if (!qat()) return state_.weights.data();
  fake_quant(layout_, state_.weights.data(), quantized_.data(), pool_);
  return quantized_.data();
}

Worker::Worker(const Job& job, ThreadPool* shared)
    : own_(shared ? nullptr : std::make_unique<ThreadPool>(1)), job_(job) {
  ThreadPool& pool = shared ? *shared : *own_;
  gradients_.resize(static_cast<size_t>(job.layout.total()));
  tape_ = std::make_unique<Tape<float>>(job.layout, job.values, gradients_.data(), pool);
  still_ = std::make_unique<Tape<float>>(job.layout, job.values, nullptr, pool);
  if (job.teacher) {
    teacher_ = std::make_unique<Tape<float>>(job.layout, job.teacher, nullptr, pool);
  }
}

void Worker::train(const Batch& batch, double weight) {
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  const Rows rows(batch, job_.seq_len);
  tape_->reset();
  const double before = flops();
  const kernels::Value logits = model::forward(job_.shapes, *tape_, rows.step(batch));
  if (teacher_) {
    teacher_->reset();
    const kernels::Value target = model::forward(job_.shapes, *teacher_, rows.step(batch));
    sums_ = {tape_->distillation(logits, teacher_->data(target), weight), 0, 0, 0};
  } else {
    sums_ = {tape_->cross_entropy(logits, batch.targets, weight), 0, 0, 0};
  }
  tape_->backward();
  sums_.flops = flops() - before;
}

void Worker::evaluate(const Batch& batch) {
  const Rows rows(batch, job_.seq_len);
  still_->reset();
  const kernels::Value logits = model::forward(job_.shapes, *still_, rows.step(batch));
  sums_ = {still_->cross_entropy(logits, batch.targets, 0), 0, 0, 0};
  if (!teacher_) return;
  teacher_->reset();
  const kernels::Value target = model::forward(job_.shapes, *teacher_, rows.step(batch));
  sums_.kld = still_->distillation(logits, teacher_->data(target), 0);
  sums_.teacher_loss = teacher_->cross_entropy(target, batch.targets, 0);
}

void add_to(std::vector<float>& sum, const std::vector<float>& x, ThreadPool& pool) {
  const auto n = static_cast<int64_t>(x.size());
  constexpr int64_t kPiece = 65536;
  pool.parallel_for(ceil_div(n, kPiece), 1, [&](int64_t begin, int64_t end, int) {
    loops<float>().axpy(std::min(n, end * kPiece) - begin * kPiece, 1.0f, x.data() + begin * kPiece,
                        sum.data() + begin * kPiece);
  });
}

// Mean loss of the step, in nats a token.
double Run::step() {
  forward_values();
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  const double weight = 1.0 / static_cast<double>(options_.batch * options_.seq_len);
  const int64_t n_micro = options_.batch / options_.micro_batch;
  std::vector<Batch> batches;
  for (int64_t k = 0; k < n_micro; ++k) {
    batches.push_back(data_->batch(state_.step * options_.batch + k * options_.micro_batch,
                                   options_.micro_batch));
  }
  double loss = 0;
  for_micro_batches(
      n_micro, [&](Worker& w, int64_t k) { w.train(batches[static_cast<size_t>(k)], weight); },
      [&](const Worker& w) {
        loss += w.sums().loss;
        flops_ += w.sums().flops;
        add_to(gradients_, w.gradients(), pool_);
      });
  const double norm = global_norm(gradients_.data(), layout_.total(), pool_);
  if (!std::isfinite(loss) || !std::isfinite(norm)) {
    throw Error({"training diverged",
                 {},
                 "step " + std::to_string(state_.step + 1),
                 "finite loss and gradients",
                 {},
                 "a lower learning rate may help"});
  }
  const bool clip = options_.clip_norm > 0 && norm > options_.clip_norm;
  const int64_t n = state_.step + 1;
  const double rate =
      learning_rate_at(n, steps_, warmup_, options_.learning_rate, options_.final_lr_ratio);
  adamw_step(layout_, {options_.beta1, options_.beta2, options_.epsilon, options_.weight_decay}, n,
             rate, clip ? options_.clip_norm / norm : 1.0, gradients_.data(), state_.weights.data(),
             state_.m.data(), state_.v.data(), pool_);
  state_.step = n;
  state_.learning_rate_sum += rate;
  progress_.learning_rate = rate;
  progress_.gradient_norm = norm;
  return loss * weight;
}

// Cross-entropy (and KL) over the held-out text; the tape's gradients are left alone.
void Run::evaluate(bool whole) {
  if (!held_out_) return;
  const Clock::time_point start = Clock::now();
  forward_values();
  int64_t sequences = held_out_->sequences();
  if (!whole) {
    sequences = std::clamp<int64_t>(options_.eval_tokens / options_.seq_len, 1, sequences);
  }
  const int64_t size = options_.micro_batch;
  double loss = 0, kld = 0, teacher_loss = 0;
  for_micro_batches(
      ceil_div(sequences, size),
      [&](Worker& w, int64_t k) {
        w.evaluate(held_out_->batch(k * size, std::min(size, sequences - k * size)));
      },
      [&](const Worker& w) {
        loss += w.sums().loss;
        kld += w.sums().kld;
        teacher_loss += w.sums().teacher_loss;
      });
  const double tokens = static_cast<double>(sequences * options_.seq_len);
  progress_.evaluated = true;
  progress_.validation_loss = loss / tokens;
  if (qat()) {
    progress_.validation_kld = kld / tokens;
    result_.teacher_validation_loss = teacher_loss / tokens;
    const std::vector<uint8_t> codes = quant_codes(layout_, state_.weights.data(), pool_);
    int64_t changed = 0;
    for (size_t i = 0; i < codes.size(); ++i) changed += codes[i] != start_codes_[i];
    progress_.codes_changed = static_cast<double>(changed) / static_cast<double>(codes.size());
  }
  evaluation_seconds_ += seconds_since(start);
}

void Run::update_progress() {
  TrainProgress& p = progress_;
  p.step = state_.step;
  p.steps = steps_;
  p.tokens = state_.step * options_.batch * options_.seq_len;
  p.smooth_loss = state_.smooth_loss;
  if (qat() && median_scale_ > 0) p.travel = state_.learning_rate_sum / median_scale_;
  const double seconds = seconds_since(training_started_) - evaluation_seconds_;
  const auto done = static_cast<double>(state_.step - first_step_);
  if (done <= 0 || seconds <= 0) return;
  p.tokens_per_second = done * static_cast<double>(options_.batch * options_.seq_len) / seconds;
  p.gflops = flops_ / seconds * 1e-9;
  p.seconds_left = seconds / done * static_cast<double>(steps_ - state_.step);
}

void Run::export_model() {
  ModelTexts texts = texts_for(tokenizer_->vocab());
  if (!texts_from_.empty()) {
    // Go on from a model: its own files, as they are.
    if (options_.tokenizer.empty()) {
      texts.tokenizer_json = text_if_there(texts_from_, "tokenizer.json");
      texts.tokenizer_config_json = text_if_there(texts_from_, "tokenizer_config.json");
    }
    texts.generation_config_json = text_if_there(texts_from_, "generation_config.json");
  }
  write_hf_model(options_.out_dir, shapes_, layout_, forward_values(), texts);
}

// Finds out before hours of work whether the result can be written, and overwrites nothing that
// the run reads or that another run left.
void check_targets(const TrainOptions& options) {
  for (const std::string& source : {options.init, options.teacher}) {
    if (!source.empty() && same_file(options.out_dir, source)) {
      throw Error({"the output is a model that the run reads",
                   options.out_dir,
                   "--out",
                   "another directory",
                   {},
                   {}});
    }
  }
  if (!options.checkpoint.empty() && !options.resume &&
      std::filesystem::exists(options.checkpoint)) {
    throw Error({"the checkpoint of another run is there",
                 options.checkpoint,
                 "--checkpoint",
                 {},
                 {},
                 "--resume goes on with it; remove the file to begin anew"});
  }
  if (options.out_dir.empty()) return;
  std::error_code error;
  const bool made = std::filesystem::create_directories(options.out_dir, error);
  if (error) {
    throw Error(
        {"cannot make the directory: " + error.message(), options.out_dir, "--out", {}, {}, {}});
  }
  { const AtomicFile probe(options.out_dir + "/model.safetensors"); }
  if (made) std::filesystem::remove(options.out_dir, error);
}

TrainResult Run::go() {
  started_ = Clock::now();
  check_options(options_);
  check_targets(options_);
  open_models();
  open_tokenizer();
  open_data();
  start_state();
  note("model: " + std::to_string(model::parameter_count(shapes_.config)) + " parameters, " +
       std::to_string(steps_) + " steps of " + std::to_string(options_.batch * options_.seq_len) +
       " tokens");
  if (qat() && held_out_ && state_.step == 0) {
    evaluate(true);
    result_.start_validation_kld = progress_.validation_kld;
    update_progress();
    if (sink_.progress) sink_.progress(progress_);
  }
  training_started_ = Clock::now();
  evaluation_seconds_ = 0;
  if (state_.step >= steps_) {  // resumed at its end: the result is reported and written again
    evaluate(true);
    update_progress();
  }
  while (state_.step < steps_) {
    if (stop_requested()) {
      result_.stopped = true;
      break;
    }
    progress_.evaluated = false;
    progress_.loss = step();
    state_.smooth_loss =
        state_.step == 1 ? progress_.loss : 0.98 * state_.smooth_loss + 0.02 * progress_.loss;
    const bool last = state_.step == steps_;
    if (last || (options_.eval_interval > 0 && state_.step % options_.eval_interval == 0)) {
      evaluate(last);
    }
    update_progress();
    progress_.saved = !options_.checkpoint.empty() && !last &&
                      state_.step % std::max<int64_t>(1, options_.checkpoint_interval) == 0;
    if (progress_.saved) save();
    if (sink_.progress) sink_.progress(progress_);
  }
  if (!options_.checkpoint.empty()) save();
  if (!result_.stopped && !options_.out_dir.empty()) export_model();
  result_.last = progress_;
  result_.seconds = seconds_since(started_);
  return result_;
}

}  // namespace

void set_qat_defaults(TrainOptions& options) {
  options.learning_rate = 2e-4;
  options.final_lr_ratio = 0;
  options.weight_decay = 0;
}

TrainResult run_training(const TrainOptions& options, const TrainSink& sink) {
  return Run(options, sink).go();
}

}  // namespace carat::train
