#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/progress.h"
#include "base/error.h"
#include "base/json.h"
#include "train/make_tokenizer.h"
#include "train/trainer.h"

namespace carat::app {
namespace {

std::string progress_note(const train::TrainProgress& p, bool qat) {
  std::string note = fmt::format("loss {:.4f}  {:.0f} tokens/s  {:.1f} GFLOP/s", p.smooth_loss,
                                 p.tokens_per_second, p.gflops);
  if (qat && p.travel > 0) note += fmt::format("  travel {:.2f}", p.travel);
  return note + "  left " + format_duration(p.seconds_left);
}

// What stays in a log: evaluations, and what a run that is killed would go on from.
std::string log_line(const train::TrainProgress& p, bool qat) {
  std::string line =
      fmt::format("step {}/{}  tokens {}  loss {:.4f}", p.step, p.steps, p.tokens, p.smooth_loss);
  if (p.evaluated) line += fmt::format("  held-out loss {:.4f}", p.validation_loss);
  if (p.evaluated && qat) {
    line += fmt::format("  held-out KLD {:.5f}  codes changed {:.2f} %", p.validation_kld,
                        100 * p.codes_changed);
  }
  if (p.step > 0) line += fmt::format("  {:.0f} tokens/s", p.tokens_per_second);
  if (p.step < p.steps && p.step > 0) line += "  left " + format_duration(p.seconds_left);
  return p.saved ? line + "  saved" : line;
}

class TrainCommand final : public Command {
 public:
  std::string name() const override { return "train"; }

  HelpText help() const override {
    return {
        .summary = "trains a model: pre-training, and quantization-aware training",
        .description =
            "Without --teacher, learns to predict the text (cross-entropy). With --teacher, makes "
            "a copy of the teacher whose weights survive Q4_0: learns the teacher's distribution "
            "(KL divergence) with its weights on the Q4_0 lattice.\n"
            "The result is a Hugging Face directory in bf16. The same options, text and seed give "
            "the same weights bit for bit, whatever the number of threads. Ctrl-C finishes the "
            "step, saves the checkpoint (with --checkpoint) and ends; --resume goes on as if "
            "nothing had happened.",
        .examples = {
            {"carat train --new-tokenizer 2048 --text train.txt --out tokenizer",
             "learns a tokenizer of 2048 entries; writes tokenizer/tokenizer.json"},
            {"carat train --config config.json --tokenizer tokenizer.json --text train.txt \\\n"
             "      --validation test.txt --tokens 6000000 --out teacher",
             "pre-trains a model of the shape in config.json"},
            {"carat train --teacher teacher --text train.txt --tokens 2000000 --out qat",
             "quantization-aware training against that model"},
            {"carat train ... --checkpoint run.state --resume",
             "goes on where the run was stopped"}}};
  }

  std::vector<Option> options() override {
    const train::TrainOptions& d = defaults_;
    std::vector<Option> rows = {
        {.names = "--text",
         .value = "FILE",
         .target = &text_,
         .required = true,
         .help = "plain UTF-8 text to learn from; may be given several times"},
        {.names = "--out",
         .value = "DIR",
         .target = &options_.out_dir,
         .required = true,
         .help = "directory for the trained model"},
        {.names = "--validation",
         .value = "FILE",
         .target = &options_.validation_file,
         .help = "held-out text"},
        {.names = "--tokenizer",
         .value = "FILE",
         .target = &options_.tokenizer,
         .help = "tokenizer.json; without it, the one beside --init or --teacher"},
        {.names = "--new-tokenizer",
         .value = "N",
         .target = &new_tokenizer_,
         .help = "trains no model: learns a tokenizer of N entries from --text",
         .lowest = 512,
         .highest = 262144,
         .default_text = "none"},
        {.names = "--config",
         .value = "FILE",
         .target = &options_.config,
         .help = "config.json, or a size that synth knows, for fresh weights"},
        {.names = "--init",
         .value = "DIR",
         .target = &options_.init,
         .help = "model directory to go on from"},
        {.names = "--teacher",
         .value = "DIR",
         .target = &options_.teacher,
         .help = "model directory to follow: quantization-aware training"},
        {.names = "--tokens",
         .value = "N",
         .target = &options_.tokens,
         .help = "how long: tokens to see",
         .lowest = 0,
         .default_text = "none"},
        {.names = "--steps",
         .value = "N",
         .target = &options_.steps,
         .help = "how long: steps to make",
         .lowest = 0,
         .default_text = "none"},
    };
    const std::vector<Option> tuning = {
        {.names = "--batch",
         .value = "N",
         .target = &options_.batch,
         .help = "sequences a step",
         .lowest = 1,
         .highest = 65536},
        {.names = "--micro-batch",
         .value = "N",
         .target = &options_.micro_batch,
         .help = "sequences in memory at once; divides --batch",
         .lowest = 1,
         .highest = 65536},
        {.names = "--seq",
         .value = "N",
         .target = &options_.seq_len,
         .help = "tokens a sequence",
         .lowest = 2,
         .highest = 131072},
        {.names = "--lr",
         .value = "X",
         .target = &learning_rate_,
         .help = "highest learning rate",
         .lowest = 0,
         .default_text = either(d.learning_rate, qat_defaults_.learning_rate)},
        {.names = "--final-lr-ratio",
         .value = "X",
         .target = &final_lr_ratio_,
         .help = "last learning rate as a share of the highest",
         .lowest = 0,
         .highest = 1,
         .default_text = either(d.final_lr_ratio, qat_defaults_.final_lr_ratio)},
        {.names = "--warmup",
         .value = "N",
         .target = &options_.warmup_steps,
         .help = "steps of warm-up; 0: 5 % of all",
         .lowest = 0},
        {.names = "--weight-decay",
         .value = "X",
         .target = &weight_decay_,
         .help = "AdamW's decay of matrices",
         .lowest = 0,
         .default_text = either(d.weight_decay, qat_defaults_.weight_decay)},
        {.names = "--beta1",
         .value = "X",
         .target = &beta1_,
         .help = "AdamW",
         .lowest = 0,
         .highest = 1,
         .default_text = either(d.beta1, qat_defaults_.beta1)},
        {.names = "--beta2",
         .value = "X",
         .target = &beta2_,
         .help = "AdamW",
         .lowest = 0,
         .highest = 1,
         .default_text = either(d.beta2, qat_defaults_.beta2)},
        {.names = "--clip",
         .value = "X",
         .target = &clip_norm_,
         .help = "highest norm of the gradient; 0: no clipping",
         .lowest = 0,
         .default_text = either(d.clip_norm, qat_defaults_.clip_norm)},
        {.names = "--seed",
         .value = "S",
         .target = &seed_,
         .help = "of everything random",
         .lowest = 0},
        {.names = "--checkpoint",
         .value = "FILE",
         .target = &options_.checkpoint,
         .help = "state for an exact continuation; none without this option"},
        {.names = "--checkpoint-interval",
         .value = "N",
         .target = &options_.checkpoint_interval,
         .help = "steps between checkpoints",
         .lowest = 1},
        {.names = "--resume", .target = &options_.resume, .help = "goes on from --checkpoint"},
        {.names = "--eval-interval",
         .value = "N",
         .target = &options_.eval_interval,
         .help = "steps between evaluations; 0: only at the end",
         .lowest = 0},
        {.names = "--eval-tokens",
         .value = "N",
         .target = &options_.eval_tokens,
         .help = "held-out tokens an evaluation sees; the last sees all",
         .lowest = 1},
        threads_option(&threads_),
        json_option(&json_),
    };
    rows.insert(rows.end(), tuning.begin(), tuning.end());
    return rows;
  }

  int run(const Environment& environment) override {
    if (new_tokenizer_ > 0) return run_new_tokenizer();
    if ((options_.steps > 0) == (options_.tokens > 0)) {
      throw UsageError("exactly one of --tokens and --steps says how long to train");
    }
    if (options_.resume && options_.checkpoint.empty()) {
      throw UsageError("--resume needs --checkpoint");
    }
    fill_options();
    const bool qat = options_.mode == train::TrainMode::kQat;
    Progress progress("steps");
    train::TrainSink sink;
    sink.stop = environment.stop;
    sink.note = [&](const std::string& text) {
      progress.finish();
      fmt::print(stderr, "{}\n", text);
    };
    sink.progress = [&](const train::TrainProgress& p) {
      if (p.evaluated || p.saved) {
        progress.finish();
        fmt::print(stderr, "{}\n", log_line(p, qat));
      }
      progress.update(p.step, p.steps, progress_note(p, qat));
    };
    const train::TrainResult result = train::run_training(options_, sink);
    progress.finish();
    report(result, qat);
    if (result.stopped) throw Interrupted();
    return kDone;
  }

 private:
  int run_new_tokenizer() const {
    const train::TokenizerResult r = train::make_tokenizer(text_, new_tokenizer_, options_.out_dir);
    const double ratio =
        static_cast<double>(r.bytes) / static_cast<double>(std::max<int64_t>(1, r.tokens));
    if (json_) {
      Json j;
      j["vocab_size"] = new_tokenizer_;
      j["bytes"] = r.bytes;
      j["tokens"] = r.tokens;
      j["bytes_per_token"] = ratio;
      j["out"] = options_.out_dir;
      fmt::print("{}\n", to_json_text(j, 2));
    } else {
      fmt::print(
          "{} entries; the text's {} bytes become {} tokens, {:.2f} bytes a token\nwrote {}\n",
          new_tokenizer_, r.bytes, r.tokens, ratio, options_.out_dir);
    }
    return kDone;
  }

  static std::string either(double pretrain, double qat) {
    return pretrain == qat ? fmt::format("{}", pretrain)
                           : fmt::format("{}, with --teacher {}", pretrain, qat);
  }

  void fill_options() {
    if (!options_.teacher.empty()) {
      options_.mode = train::TrainMode::kQat;
      train::set_qat_defaults(options_);
    }
    options_.text_files = text_;
    options_.learning_rate = learning_rate_.value_or(options_.learning_rate);
    options_.final_lr_ratio = final_lr_ratio_.value_or(options_.final_lr_ratio);
    options_.weight_decay = weight_decay_.value_or(options_.weight_decay);
    options_.beta1 = beta1_.value_or(options_.beta1);
    options_.beta2 = beta2_.value_or(options_.beta2);
    options_.clip_norm = clip_norm_.value_or(options_.clip_norm);
    options_.seed = static_cast<uint64_t>(seed_);
    options_.threads = static_cast<int>(threads_);
  }

  void report(const train::TrainResult& result, bool qat) const {
    const train::TrainProgress& last = result.last;
    if (json_) {
      Json j;
      j["steps"] = last.step;
      j["tokens"] = last.tokens;
      j["seconds"] = result.seconds;
      j["tokens_per_second"] = last.tokens_per_second;
      j["gflops"] = last.gflops;
      j["loss"] = last.smooth_loss;
      if (!options_.validation_file.empty()) j["validation_loss"] = last.validation_loss;
      if (qat) {
        j["validation_kld"] = last.validation_kld;
        if (result.start_validation_kld > 0) {
          j["start_validation_kld"] = result.start_validation_kld;
        }
        j["teacher_validation_loss"] = result.teacher_validation_loss;
        j["codes_changed"] = last.codes_changed;
      }
      j["stopped"] = result.stopped;
      j["out"] = options_.out_dir;
      fmt::print("{}\n", to_json_text(j, 2));
      return;
    }
    if (result.stopped) return;
    fmt::print("{} steps, {} tokens in {}: {:.0f} tokens/s, {:.1f} GFLOP/s, loss {:.4f}\n",
               last.step, last.tokens, format_duration(result.seconds), last.tokens_per_second,
               last.gflops, last.smooth_loss);
    if (!options_.validation_file.empty()) {
      fmt::print("held-out loss {:.4f} nats/token\n", last.validation_loss);
    }
    if (qat && !options_.validation_file.empty()) {
      fmt::print("held-out KLD(teacher, student) {:.5f}", last.validation_kld);
      if (result.start_validation_kld > 0) {
        fmt::print("; rounding to nearest began at {:.5f}", result.start_validation_kld);
      }
      fmt::print("\n");
    }
    fmt::print("wrote {}\n", options_.out_dir);
  }

  static train::TrainOptions with_qat_defaults() {
    train::TrainOptions options;
    train::set_qat_defaults(options);
    return options;
  }

  train::TrainOptions options_;
  const train::TrainOptions defaults_{};
  const train::TrainOptions qat_defaults_ = with_qat_defaults();
  std::vector<std::string> text_;
  std::optional<double> learning_rate_, final_lr_ratio_, weight_decay_, beta1_, beta2_, clip_norm_;
  int64_t seed_ = 1;
  int64_t threads_ = 0;
  int64_t new_tokenizer_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_train_command() { return std::make_unique<TrainCommand>(); }

}  // namespace carat::app
