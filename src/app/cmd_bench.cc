#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/memory.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/traffic.h"
#include "app/version.h"
#include "base/error.h"
#include "base/json.h"
#include "base/rng.h"
#include "engine/session.h"
#include "kernels/cpu/bandwidth.h"
#include "kernels/cpu/cpu_ops.h"

namespace carat::app {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

struct Figures {
  std::vector<double> prefill_seconds, decode_seconds;  // one per repetition; empty: not asked for
  int64_t bytes_per_token = 0;                          // read by a decode step
  int64_t peak_resident = 0;
  int64_t kv_bytes = 0;
  double read_bandwidth = 0;  // bytes/s
};

class BenchCommand final : public Command {
 public:
  std::string name() const override { return "bench"; }

  HelpText help() const override {
    return {
        .summary = "measures how fast a model reads and writes",
        .description =
            "Prefill reads -p tokens (the logits of the last one included), decode makes -n more, "
            "each from a context of -d tokens; both begin there, neither counts reading it. Decode "
            "is "
            "limited by memory: every token reads the weights it needs and its keys and values. "
            "The read bandwidth is measured in the same run, and the share of it that decode "
            "reaches is told. With -r, medians.",
        .examples = {{"carat bench model.gguf", "512 tokens in, 32 out"},
                     {"carat bench model.gguf -p 0 -n 16 -d 8192", "decode at a long context"},
                     {"carat bench model.gguf --json -t 4", "for scripts"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "MODEL",
             .target = &model_,
             .help = "GGUF file or model directory; without it, the built-in model"},
            {.names = "-p,--prefill",
             .value = "N",
             .target = &prefill_,
             .help = "tokens to read; 0: no prefill",
             .lowest = 0,
             .highest = 1 << 20},
            {.names = "-n,--decode",
             .value = "N",
             .target = &decode_,
             .help = "tokens to make; 0: no decode",
             .lowest = 0,
             .highest = 1 << 20},
            {.names = "-d,--depth",
             .value = "N",
             .target = &depth_,
             .help = "tokens of context before either",
             .lowest = 0,
             .highest = 1 << 20},
            {.names = "--all-logits",
             .target = &all_logits_,
             .help = "prefill computes the logits of every token"},
            {.names = "-r,--repeat",
             .value = "N",
             .target = &repeat_,
             .help = "repetitions",
             .lowest = 1,
             .highest = 1000},
            {.names = "--chunk",
             .value = "N",
             .target = &chunk_,
             .help = "tokens a forward pass while reading",
             .lowest = 1,
             .highest = 65536},
            no_pack_option(&no_pack_),
            kv_option(&kv_),
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment& environment) override {
    if (prefill_ == 0 && decode_ == 0) throw UsageError("-p 0 -n 0 leaves nothing to measure");
    stop_ = environment.stop;
    ThreadPool pool(resolve_threads(threads_));
    const model::Model model = open_model(model_, pool, !no_pack_);
    print_notes(model);
    const kernels::KernelTable& table = kernels::choose_kernels(environment.isa);
    kernels::CpuOps ops(pool, table);
    engine::SessionOptions session_options;
    session_options.kv = kv_type(kv_);
    session_options.chunk = chunk_;
    engine::Session session(model, ops, session_options);
    session.require_room(depth_ + std::max(prefill_, decode_));

    Figures f;
    warm_up(session);
    for (int64_t r = 0; r < repeat_; ++r) {
      if (prefill_ > 0) f.prefill_seconds.push_back(time_prefill(session));
      if (decode_ > 0) f.decode_seconds.push_back(time_decode(session));
    }
    f.kv_bytes = session.kv_bytes_in_use();
    f.bytes_per_token = decode_bytes(model, kv_type(kv_), depth_ + decode_ / 2);
    f.peak_resident = peak_resident_bytes();  // before the measurement of bandwidth adds its own
    f.read_bandwidth = kernels::measure_read_bandwidth(pool);
    if (json_) {
      print_json(f, table.isa, pool.size());
    } else {
      print_table(f, table.isa, pool.size());
    }
    return kDone;
  }

 private:
  std::vector<int32_t> random_tokens(const engine::Session& session, int64_t n) const {
    Rng rng(1);
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < n; ++i) {
      tokens.push_back(
          static_cast<int32_t>(rng.below(static_cast<uint64_t>(session.vocab_size()))));
    }
    return tokens;
  }

  // Brings the weights into memory and the threads up to speed.
  void warm_up(engine::Session& session) const {
    (void)session.read(random_tokens(session, 1), {}, stop_);
    session.clear();
  }

  void read_context(engine::Session& session) const {
    session.clear();
    if (depth_ == 0) return;
    Progress progress("tokens of context");
    (void)session.read(
        random_tokens(session, depth_),
        [&](int64_t done, int64_t total) { progress.update(done, total); }, stop_);
  }

  double time_prefill(engine::Session& session) const {
    read_context(session);
    const std::vector<int32_t> tokens = random_tokens(session, prefill_);
    const auto begin = Clock::now();
    if (all_logits_) {
      session.read_all(
          tokens, [](int64_t, int64_t, std::span<const float>) {}, {}, stop_);
    } else {
      (void)session.read(tokens, {}, stop_);
    }
    return seconds_since(begin);
  }

  // Greedy decoding: the choice of the token is part of it.
  double time_decode(engine::Session& session) const {
    read_context(session);
    int32_t token = random_tokens(session, 1).front();
    const auto begin = Clock::now();
    for (int64_t i = 0; i < decode_; ++i) {
      const std::span<const float> logits = session.read(std::span(&token, 1), {}, stop_);
      token = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }
    return seconds_since(begin);
  }

  double prefill_speed(const Figures& f) const {
    return static_cast<double>(prefill_) / median(f.prefill_seconds);
  }
  double decode_speed(const Figures& f) const {
    return static_cast<double>(decode_) / median(f.decode_seconds);
  }

  void print_json(const Figures& f, const char* isa, int threads) const {
    Json j;
    j["model"] = display_name(model_);
    j["threads"] = threads;
    j["isa"] = isa;
    j["kv"] = kv_;
    j["prefill_tokens"] = prefill_;
    j["decode_tokens"] = decode_;
    j["depth"] = depth_;
    j["all_logits"] = all_logits_;
    j["repeat"] = repeat_;
    if (prefill_ > 0) j["prefill_tokens_per_second"] = prefill_speed(f);
    if (decode_ > 0) {
      const double rate = decode_speed(f) * static_cast<double>(f.bytes_per_token);
      j["decode_tokens_per_second"] = decode_speed(f);
      j["decode_bytes_per_token"] = f.bytes_per_token;
      j["decode_gigabytes_per_second"] = rate / 1e9;
      j["decode_share_of_read_bandwidth"] = rate / f.read_bandwidth;
    }
    j["read_gigabytes_per_second"] = f.read_bandwidth / 1e9;
    j["kv_bytes"] = f.kv_bytes;
    j["peak_resident_bytes"] = f.peak_resident;
    j["version"] = version();
    j["commit"] = commit();
    fmt::print("{}\n", to_json_text(j, 2));
  }

  void print_table(const Figures& f, const char* isa, int threads) const {
    Table table({"test", "tokens/s", "MB/token", "GB/s", "of the limit"});
    const std::string at = depth_ > 0 ? fmt::format(" at {}", depth_) : "";
    if (prefill_ > 0) {
      table.add({fmt::format("prefill {}{}", prefill_, at), fmt::format("{:.2f}", prefill_speed(f)),
                 "-", "-", "-"});
    }
    if (decode_ > 0) {
      const double rate = decode_speed(f) * static_cast<double>(f.bytes_per_token);
      table.add({fmt::format("decode {}{}", decode_, at), fmt::format("{:.2f}", decode_speed(f)),
                 fmt::format("{:.1f}", static_cast<double>(f.bytes_per_token) / 1e6),
                 fmt::format("{:.2f}", rate / 1e9),
                 fmt::format("{:.1f} %", 100 * rate / f.read_bandwidth)});
    }
    fmt::print("{}  {} threads, {}, K/V {}\n\n{}\n", display_name(model_), threads, isa, kv_,
               table.text());
    fmt::print("memory reads {:.2f} GB/s; peak resident {}, K/V {}\n", f.read_bandwidth / 1e9,
               format_bytes(f.peak_resident), format_bytes(f.kv_bytes));
  }

  ModelName model_;
  int64_t prefill_ = 512, decode_ = 32, depth_ = 0, repeat_ = 1, chunk_ = 512;
  bool all_logits_ = false;
  std::string kv_ = "int8";
  int64_t threads_ = 0;
  bool no_pack_ = false, json_ = false;
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace

std::unique_ptr<Command> make_bench_command() { return std::make_unique<BenchCommand>(); }

}  // namespace carat::app
