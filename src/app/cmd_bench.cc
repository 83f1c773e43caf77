#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "app/bench_runs.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/machine.h"
#include "app/memory.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/traffic.h"
#include "app/version.h"
#include "base/error.h"
#include "base/json.h"
#include "base/seconds.h"
#include "engine/session.h"
#include "kernels/cpu/cpu_ops.h"

namespace carat::app {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kFirstPrompt = 16;  // tokens

struct Figures {
  BenchTimes times;
  StepBytes step_bytes;                        // read by a step of decoding
  StepMultiplyAdds prefill_work;               // made by one prefill of one sequence
  std::optional<int64_t> peak_resident;        // nothing: not known
  int64_t kv_bytes = 0;                        // most that were in use
  std::optional<MachineLimits> before, after;  // nothing: not asked for

  std::optional<MachineLimits> limits() const {
    if (!before || !after) return std::nullopt;
    return better_of(*before, *after);
  }
};

// From the start of the command.
struct FirstToken {
  double load = 0;     // the file opened, its tokenizer read
  double pack = 0;     // the weights brought where the kernels read them; 0: left in the file
  double prefill = 0;  // the prompt read, the token chosen
  double total = 0;
};

class BenchCommand final : public Command {
 public:
  std::string name() const override { return "bench"; }

  HelpText help() const override {
    return {
        .summary = "measures how fast a model reads and writes",
        .description =
            "Prefill reads -p tokens (the logits of the last one included), decode makes -n more, "
            "each from a context of -d tokens, reading which does not count. With -r, medians.\n"
            "Decode is limited by memory: every token reads the weights it needs and its keys and "
            "values. Prefill is limited by arithmetic: so many multiply-adds, those that are "
            "skipped not counted. What this machine can read and multiply is measured before and "
            "after, with the same threads and instruction set, and the share of it that was "
            "reached is told. A figure that was not measured is not printed.",
        .examples = {{"carat bench model.gguf", "512 tokens in, 32 out"},
                     {"carat bench model.gguf -p 0 -n 16 -d 8192", "decode at a long context"},
                     {"carat bench model.gguf --first-token", "from start to the first token"},
                     {"carat bench --machine", "only what the machine can do"},
                     {"carat bench model.gguf --json -t 4", "for scripts"}}};
  }

  std::vector<Option> options() override {
    constexpr double kMost = 1 << 20;
    return {{.names = "MODEL",
             .target = &model_,
             .help = "GGUF file or model directory; without it, the built-in model"},
            {.names = "-p,--prefill",
             .value = "N",
             .target = &prefill_,
             .help = "tokens to read; 0: no prefill",
             .lowest = 0,
             .highest = kMost,
             .default_text = fmt::format("{}", BenchPlan().prefill)},
            {.names = "-n,--decode",
             .value = "N",
             .target = &decode_,
             .help = "tokens to make; 0: no decode",
             .lowest = 0,
             .highest = kMost,
             .default_text = fmt::format("{}", BenchPlan().decode)},
            {.names = "-d,--depth",
             .value = "N",
             .target = &depth_,
             .help = "tokens of context before either",
             .lowest = 0,
             .highest = kMost,
             .default_text = "0"},
            {.names = "--sequences",
             .value = "N",
             .target = &sequences_,
             .help = "so many sequences together, each with -p tokens of its own; tokens of all "
                     "count",
             .lowest = 1,
             .highest = 1024,
             .default_text = "1"},
            {.names = "--all-logits",
             .target = &plan_.all_logits,
             .help = "prefill computes the logits of every token"},
            {.names = "-r,--repeat",
             .value = "N",
             .target = &repeat_,
             .help = "repetitions, of which the median is told; each prefill begins at -d anew, "
                     "each decode goes on where the one before ended; with --sequences all begins "
                     "anew",
             .lowest = 1,
             .highest = 1000,
             .default_text = "1"},
            {.names = "--chunk",
             .value = "N",
             .target = &chunk_,
             .help = "tokens a forward pass while reading",
             .lowest = 1,
             .highest = static_cast<double>(engine::kMaxChunk),
             .default_text = fmt::format("{}", engine::SessionOptions().chunk)},
            {.names = "--first-token",
             .target = &first_token_,
             .help = "only the time from start to the first token after a prompt of 16"},
            {.names = "--machine",
             .target = &machine_,
             .help = "only the limits of the machine, on one thread and on all"},
            {.names = "--no-limits",
             .target = &no_limits_,
             .help = "leaves out the limits of the machine, and with them the shares"},
            no_pack_option(&no_pack_),
            kv_option(&kv_),
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment& environment) override {
    refuse_ignored();
    plan_.prefill = prefill_.value_or(plan_.prefill);
    plan_.decode = decode_.value_or(plan_.decode);
    plan_.depth = depth_.value_or(plan_.depth);
    plan_.repeat = repeat_.value_or(plan_.repeat);
    if (machine_) {
      print_machine(kernels::choose_kernels(environment.isa).isa);
      return kDone;
    }
    if (first_token_) {
      print_first_token(environment);
      return kDone;
    }
    if (plan_.prefill == 0 && plan_.decode == 0) {
      throw UsageError("-p 0 -n 0 leaves nothing to measure");
    }
    if (sequences() > 1 && (plan_.prefill == 0 || plan_.decode == 0)) {
      throw UsageError("--sequences goes with -p and -n, neither of them 0");
    }
    ThreadPool pool(resolve_threads(threads_));
    const kernels::KernelTable& table = kernels::choose_kernels(environment.isa);
    const Figures f = measure(pool, table, environment.stop);
    if (json_) {
      print_json(f, table.isa, pool.size());
    } else {
      print_table(f, table.isa, pool.size());
    }
    return kDone;
  }

 private:
  int64_t sequences() const { return sequences_.value_or(1); }

  // Options that the kind of work would not look at.
  void refuse_ignored() const {
    const std::pair<const char*, bool> given[] = {
        {"MODEL", model_.has_value()},      {"-p", prefill_.has_value()},
        {"-n", decode_.has_value()},        {"-d", depth_.has_value()},
        {"-r", repeat_.has_value()},        {"--sequences", sequences_.has_value()},
        {"--all-logits", plan_.all_logits}, {"--chunk", chunk_.has_value()},
        {"--no-limits", no_limits_},        {"--no-pack", no_pack_},
        {"--first-token", first_token_},
    };
    const auto refuse = [&](const char* work, std::initializer_list<const char*> ignored) {
      for (const auto& [name, is_given] : given) {
        const bool is_ignored = std::any_of(ignored.begin(), ignored.end(), [&](const char* other) {
          return std::string_view(other) == name;
        });
        if (is_given && is_ignored) {
          throw UsageError(fmt::format("{} does not go with {}", name, work));
        }
      }
    };
    if (machine_) {
      refuse("--machine", {"MODEL", "-p", "-n", "-d", "-r", "--sequences", "--all-logits",
                           "--chunk", "--no-limits", "--no-pack", "--first-token"});
    } else if (first_token_) {
      refuse("--first-token",
             {"-p", "-n", "-d", "-r", "--sequences", "--all-logits", "--chunk", "--no-limits"});
    } else if (sequences() > 1) {
      refuse("--sequences", {"-d", "--all-logits", "--chunk"});
    }
  }

  engine::SessionOptions session_options(const model::Model& model) const {
    engine::SessionOptions options;
    options.kv = kv_type(kv_);
    options.chunk = chunk_.value_or(options.chunk);
    options.kv_budget = kv_memory(model);
    return options;
  }

  Figures measure(ThreadPool& pool, const kernels::KernelTable& table,
                  const std::atomic<bool>* stop) const {
    Figures f;
    bool peak_is_known = true;
    if (!no_limits_) {
      f.before = measure_limits(pool, table.isa);
      peak_is_known = reset_peak_resident();  // it took memory of its own
    }
    const model::Model model = open_model(model_, pool, !no_pack_);
    print_notes(model);
    kernels::CpuOps ops(pool, table);
    if (sequences() > 1) {
      f.times = run_batch_bench(model, ops, kv_type(kv_), kv_memory(model), plan_, sequences(),
                                stop, &f.kv_bytes);
    } else {
      engine::Session session(model, ops, session_options(model));
      f.times = run_bench(session, plan_, stop);
      f.kv_bytes = session.kv_bytes_peak();
    }
    if (plan_.prefill > 0) {
      f.prefill_work = prefill_multiply_adds(model, plan_.depth, plan_.prefill,
                                             plan_.all_logits ? plan_.prefill : 1);
    }
    f.step_bytes = decode_step_bytes(model, kv_type(kv_), decode_position(), sequences());
    if (peak_is_known) f.peak_resident = peak_resident_bytes();
    if (!no_limits_) f.after = measure_limits(pool, table.isa);
    return f;
  }

  // The middle of the positions at which steps of decoding run.
  int64_t decode_position() const {
    return sequences() > 1 ? plan_.prefill + plan_.decode / 2 : plan_.decode_position();
  }

  // Tokens a second, of all sequences together.
  double prefill_speed(const Figures& f) const {
    return static_cast<double>(sequences() * plan_.prefill) / median(f.times.prefill);
  }
  double decode_speed(const Figures& f) const {
    return static_cast<double>(sequences() * plan_.decode) / median(f.times.decode);
  }
  // Multiply-adds a second.
  double prefill_rate(const Figures& f) const {
    return static_cast<double>(sequences() * f.prefill_work.total()) / median(f.times.prefill);
  }
  // Bytes a second.
  double decode_rate(const Figures& f) const {
    return static_cast<double>(plan_.decode * f.step_bytes.total()) / median(f.times.decode);
  }

  void put_what(Json& j, const char* isa, int threads) const {
    j["model"] = display_name(model_);
    j["threads"] = threads;
    j["isa"] = isa;
    j["kv"] = kv_;
  }

  static void put_version(Json& j) {
    j["version"] = version();
    j["commit"] = commit();
  }

  void print_json(const Figures& f, const char* isa, int threads) const {
    Json j;
    put_what(j, isa, threads);
    j["prefill_tokens"] = plan_.prefill;
    j["decode_tokens"] = plan_.decode;
    j["sequences"] = sequences();
    j["depth"] = plan_.depth;
    j["all_logits"] = plan_.all_logits;
    j["repeat"] = plan_.repeat;
    const auto limits = f.limits();
    if (plan_.prefill > 0) {
      j["prefill_tokens_per_second"] = prefill_speed(f);
      j["prefill_matrix_multiply_adds"] = f.prefill_work.matrices;
      j["prefill_attention_multiply_adds"] = f.prefill_work.attention;
      j["prefill_giga_multiply_adds_per_second"] = prefill_rate(f) / 1e9;
      if (limits) j["prefill_share_of_multiply_rate"] = prefill_rate(f) / limits->multiply_rate;
    }
    if (plan_.decode > 0) {
      j["decode_tokens_per_second"] = decode_speed(f);
      j["decode_bytes_per_step"] = f.step_bytes.total();
      j["decode_weight_bytes"] = f.step_bytes.weights;
      j["decode_local_kv_bytes"] = f.step_bytes.kv_local;
      j["decode_global_kv_bytes"] = f.step_bytes.kv_global;
      j["decode_gigabytes_per_second"] = decode_rate(f) / 1e9;
      if (limits) j["decode_share_of_read_bandwidth"] = decode_rate(f) / limits->read_bandwidth;
    }
    if (limits) {
      put_limits(*limits, "", j);
      put_limits(*f.before, "before_", j);
      put_limits(*f.after, "after_", j);
    }
    j["peak_kv_bytes"] = f.kv_bytes;
    if (f.peak_resident) j["peak_resident_bytes"] = *f.peak_resident;
    put_version(j);
    fmt::print("{}\n", to_json_text(j, 2));
  }

  void print_table(const Figures& f, const char* isa, int threads) const {
    const auto limits = f.limits();
    const auto share = [&](double rate, double limit) {
      return limits ? fmt::format("{:.1f} %", 100 * rate / limit) : std::string("-");
    };
    Table table({"test", "tokens/s", "work", "a second", "of the limit"});
    const std::string at = plan_.depth > 0   ? fmt::format(" at {}", plan_.depth)
                           : sequences() > 1 ? fmt::format(" x {}", sequences())
                                             : "";
    if (plan_.prefill > 0) {
      const double work =
          static_cast<double>(f.prefill_work.total()) / static_cast<double>(plan_.prefill);
      table.add({fmt::format("prefill {}{}", plan_.prefill, at),
                 fmt::format("{:.2f}", prefill_speed(f)),
                 fmt::format("{:.3f} GMAC/token", work / 1e9),
                 fmt::format("{:.1f} GMAC", prefill_rate(f) / 1e9),
                 share(prefill_rate(f), limits ? limits->multiply_rate : 0)});
    }
    if (plan_.decode > 0) {
      const double bytes = static_cast<double>(f.step_bytes.total());
      table.add({fmt::format("decode {}{}", plan_.decode, at),
                 fmt::format("{:.2f}", decode_speed(f)), fmt::format("{:.3f} GB/step", bytes / 1e9),
                 fmt::format("{:.2f} GB", decode_rate(f) / 1e9),
                 share(decode_rate(f), limits ? limits->read_bandwidth : 0)});
    }
    fmt::print("{}  {} threads, {}, K/V {}\n\n{}\n", display_name(model_), threads, isa, kv_,
               table.text());
    if (limits) print_limits(f);
    fmt::print("{}K/V {} at most\n",
               f.peak_resident ? fmt::format("peak resident {}, ", format_bytes(*f.peak_resident))
                               : std::string(),
               format_bytes(f.kv_bytes));
  }

  static std::string limits_text(const MachineLimits& l) {
    return fmt::format("{:.2f} GB/s, {:.1f} GMAC/s", l.read_bandwidth / 1e9, l.multiply_rate / 1e9);
  }

  static void print_limits(const Figures& f) {
    fmt::print("limits: {}\n", limits_text(*f.limits()));
    if (limits_moved(*f.before, *f.after)) {
      fmt::print("the machine was not quiet: {} before, {} after\n", limits_text(*f.before),
                 limits_text(*f.after));
    }
  }

  void print_machine(const char* isa) const {
    const int threads = resolve_threads(threads_);
    ThreadPool one(1), all(threads);
    const MachineLimits on_one = measure_limits(one, isa), on_all = measure_limits(all, isa);
    if (json_) {
      Json j;
      j["threads"] = threads;
      j["isa"] = isa;
      put_limits(on_one, "one_thread_", j);
      put_limits(on_all, "", j);
      put_version(j);
      fmt::print("{}\n", to_json_text(j, 2));
      return;
    }
    fmt::print("{}\n1 thread: {}\n{} threads: {}\n", isa, limits_text(on_one), threads,
               limits_text(on_all));
  }

  void print_first_token(const Environment& environment) const {
    const auto begin = Clock::now();
    ThreadPool pool(resolve_threads(threads_));
    const kernels::KernelTable& table = kernels::choose_kernels(environment.isa);
    FirstToken t;
    model::Model model = open_model(model_, pool, false);
    t.load = seconds_since(begin);
    if (!no_pack_) {
      // As open_model would have done.
      model::pack_weights(model.weights, pack_options(pool), &model.notes);
      t.pack = seconds_since(begin) - t.load;
    }
    print_notes(model);
    kernels::CpuOps ops(pool, table);
    engine::Session session(model, ops, session_options(model));
    const std::vector<int32_t> prompt = bench_tokens(session.vocab_size(), kFirstPrompt);
    const std::span<const float> logits = session.read(prompt, {}, environment.stop);
    const auto token = std::max_element(logits.begin(), logits.end()) - logits.begin();
    t.total = seconds_since(begin);
    t.prefill = t.total - t.pack - t.load;
    if (json_) {
      Json j;
      put_what(j, table.isa, pool.size());
      j["prompt_tokens"] = kFirstPrompt;
      j["first_token"] = token;
      j["load_seconds"] = t.load;
      j["pack_seconds"] = t.pack;
      j["prefill_seconds"] = t.prefill;
      j["first_token_seconds"] = t.total;
      if (const auto peak = peak_resident_bytes()) j["peak_resident_bytes"] = *peak;
      put_version(j);
      fmt::print("{}\n", to_json_text(j, 2));
      return;
    }
    fmt::print("first token after {:.2f} s: load {:.2f}, pack {:.2f}, prompt of {} tokens {:.2f}\n",
               t.total, t.load, t.pack, kFirstPrompt, t.prefill);
    if (const auto peak = peak_resident_bytes()) {
      fmt::print("peak resident {}\n", format_bytes(*peak));
    }
  }

  ModelName model_;
  BenchPlan plan_;
  std::optional<int64_t> prefill_, decode_, depth_, repeat_, chunk_, sequences_;  // as given
  bool first_token_ = false, machine_ = false, no_limits_ = false, no_pack_ = false;
  std::string kv_ = "int8";
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace carat::app
