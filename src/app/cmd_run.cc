#include <fmt/format.h>

#include <cstdio>
#include <random>

#include "app/chat_loop.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/memory.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/standard_input.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/target.h"
#include "kernels/cpu/cpu_ops.h"

namespace carat::app {
namespace {

// Tokens that a text is continued by unless -n says otherwise.
constexpr int64_t kContinuation = 256;

class RunCommand final : public Command {
 public:
  std::string name() const override { return "run"; }

  HelpText help() const override {
    return {
        .summary = "answers a prompt, or chats",
        .description =
            "The prompt is -p's, or standard input; with neither, a chat in the terminal. Without "
            "MODEL the small model inside the program is used. A model that was taught to follow "
            "instructions answers; the others, the built-in one among them, continue the text.\n"
            "Standard output holds only the answer. Sampling is the checkpoint's own unless an "
            "option says otherwise.",
        .examples = {{"carat run -p \"Once upon a time\"", "the built-in model writes on"},
                     {"carat run gemma-4-E2B-it.gguf", "a chat"},
                     {"carat run model.gguf -p \"Why is the sky blue?\" -n 100 --temp 0",
                      "a short answer, the same every time"},
                     {"carat run model.gguf < question.txt > answer.txt", "in a pipe"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "MODEL",
         .target = &model_,
         .help = "GGUF file or model directory; without it, the built-in model"},
        {.names = "-p,--prompt", .value = "TEXT", .target = &prompt_, .help = "the prompt"},
        {.names = "-n,--max-tokens",
         .value = "N",
         .target = &max_tokens_,
         .help = "most tokens of the answer",
         .lowest = 0,
         .default_text = "until the model ends; 256 when it continues a text"},
        {.names = "--system", .value = "TEXT", .target = &system_, .help = "system instruction"},
        {.names = "--think",
         .target = &think_,
         .help = "lets the model think first; thoughts go to stderr"},
        {.names = "--raw", .target = &raw_, .help = "continues the prompt, chat model or not"},
        {.names = "--temp",
         .value = "T",
         .target = &temperature_,
         .help = "temperature; 0 always takes the most likely token",
         .lowest = 0,
         .highest = 100,
         .default_text = kFromCheckpoint},
        {.names = "--top-k",
         .value = "K",
         .target = &top_k_,
         .help = "samples from the K most likely tokens; 0: all",
         .lowest = 0,
         .default_text = kFromCheckpoint},
        {.names = "--top-p",
         .value = "P",
         .target = &top_p_,
         .help = "samples from the likeliest tokens that together reach P",
         .lowest = 1e-6,
         .highest = 1,
         .default_text = kFromCheckpoint},
        {.names = "--min-p",
         .value = "P",
         .target = &min_p_,
         .help = "drops tokens less than P times as likely as the best",
         .lowest = 0,
         .highest = 1,
         .default_text = "0"},
        {.names = "--repeat-penalty",
         .value = "R",
         .target = &repeat_penalty_,
         .help = "makes recent tokens less likely; 1: does not",
         .lowest = 0.01,
         .highest = 100,
         .default_text = "1"},
        {.names = "--seed",
         .value = "S",
         .target = &seed_,
         .help = "the same seed gives the same answer",
         .lowest = 0,
         .default_text = "random"},
        {.names = "-c,--context",
         .value = "N",
         .target = &context_,
         .help = "most tokens of prompt and answer",
         .lowest = 1,
         .default_text = "the model's"},
        kv_option(&kv_),
        {.names = "--kv-memory",
         .value = "SIZE",
         .target = &kv_memory_,
         .help = "most memory for keys and values: 512MB, 2GB",
         .default_text = "what is free"},
        no_pack_option(&no_pack_),
        threads_option(&threads_),
        verbose_option(&verbose_),
        json_option(&json_)};
  }

  int run(const Environment& environment) override {
    if (kv_memory_) kv_bytes_ = parse_bytes(*kv_memory_, "--kv-memory");
    const bool interactive = !prompt_ && stdin_is_terminal();
    if (interactive && json_) throw UsageError("--json needs a prompt");
    if (!prompt_ && !interactive) prompt_ = piped_prompt();

    io::Checkpoint checkpoint = open_model_checkpoint(model_);
    // The built-in model knows the markers of turns but was never taught to answer.
    const bool has_template = model_ && !convert::read_side_files(checkpoint).chat_template.empty();
    ThreadPool pool(resolve_threads(threads_));
    model::Model model = load_to_compute(std::move(checkpoint), pool, !no_pack_);
    model.path = display_name(model_);
    const text::Tokenizer& tokenizer = require_tokenizer(model);
    const bool chat = !raw_ && has_template && tokenizer.vocab().special.has_turns();
    print_notes(model);

    kernels::CpuOps ops(pool, kernels::choose_kernels(environment.isa));
    engine::Session session(model, ops, session_options(model));
    Answerer answerer{.session = session,
                      .tokenizer = tokenizer,
                      .sampling = sampling(model),
                      .stop_ids = model.generation.stop_ids,
                      .max_tokens = max_tokens_.value_or(chat ? -1 : kContinuation),
                      .stop = environment.stop};
    ChatSettings settings;
    settings.chat = chat;
    settings.system = system_;
    settings.render.thinking = think_;
    settings.render.small_family = model.config().is_small_family();
    settings.show_timing = verbose_ || stderr_is_terminal();
    if (interactive) {
      chat_loop(answerer, settings);
      return kDone;
    }
    return answer_once(answerer, settings);
  }

 private:
  static constexpr const char* kFromCheckpoint = "the checkpoint's";

  // Standard input without the newline that ends its last line.
  static std::string piped_prompt() {
    std::string text = read_standard_input();
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
    return text;
  }

  engine::SessionOptions session_options(const model::Model& model) const {
    engine::SessionOptions options;
    options.kv = kv_type(kv_);
    options.context = context_.value_or(0);
    options.kv_budget = kv_memory_ ? std::max<int64_t>(1, kv_bytes_) : kv_memory(model);
    return options;
  }

  engine::SamplingOptions sampling(const model::Model& model) {
    engine::SamplingOptions s = engine::sampling_options(model.generation);
    if (temperature_) s.temperature = static_cast<float>(*temperature_);
    if (top_k_) s.top_k = *top_k_;
    if (top_p_) s.top_p = static_cast<float>(*top_p_);
    if (min_p_) s.min_p = static_cast<float>(*min_p_);
    if (repeat_penalty_) s.repeat_penalty = static_cast<float>(*repeat_penalty_);
    if (!seed_) seed_ = static_cast<int64_t>(std::random_device{}());
    s.seed = static_cast<uint64_t>(*seed_);
    return s;
  }

  int answer_once(Answerer& answerer, const ChatSettings& settings) const {
    if (settings.chat && prompt_->empty()) throw Error("the prompt is empty");
    const std::vector<int32_t> prompt = settings.chat
                                            ? chat_prompt(answerer.tokenizer, *prompt_, settings)
                                            : plain_prompt(answerer.tokenizer, *prompt_);
    const Answer answer = json_ ? answerer.answer(prompt, settings.chat, {})
                                : stream_answer(answerer, prompt, settings.chat);
    if (answer.result.reason == engine::StopReason::kCancelled) throw Interrupted();
    if (json_) {
      print_json(answer);
    } else if (settings.show_timing) {
      fmt::print(stderr, "[{}; seed {}]\n", timing_line(answer.result), *seed_);
    }
    if (answer.result.reason == engine::StopReason::kContext) {
      fmt::print(stderr, "note: the answer was cut off: context or memory is full\n");
    }
    return kDone;
  }

  void print_json(const Answer& answer) const {
    const engine::GenerateResult& r = answer.result;
    Json j;
    j["text"] = answer.text;
    if (!answer.reasoning.empty()) j["reasoning"] = answer.reasoning;
    j["stop_reason"] = stop_reason_name(r.reason);
    j["tokens"] = r.tokens;
    j["prompt_tokens"] = r.prompt_tokens;
    j["generated_tokens"] = r.tokens.size();
    j["prompt_tokens_per_second"] = prompt_speed(r);
    j["decode_tokens_per_second"] = decode_speed(r);
    j["seed"] = *seed_;
    fmt::print("{}\n", to_json_text(j));
  }

  ModelName model_;
  std::optional<std::string> prompt_, kv_memory_;
  std::optional<int64_t> max_tokens_, top_k_, seed_, context_;
  std::optional<double> temperature_, top_p_, min_p_, repeat_penalty_;
  std::string system_;
  std::string kv_ = "int8";
  int64_t kv_bytes_ = 0;
  bool think_ = false, raw_ = false, no_pack_ = false, verbose_ = false, json_ = false;
  int64_t threads_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_run_command() { return std::make_unique<RunCommand>(); }

}  // namespace carat::app
