#include <fmt/format.h>

#include <cstdio>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/version.h"
#include "audit/audit.h"
#include "audit/model_logits.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace carat::app {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

Json interval_json(const audit::Figure& figure) {
  if (!figure.interval) return nullptr;
  return Json::array({figure.interval->low, figure.interval->high});
}

Json candidate_json(const std::string& path, const audit::Summary& s) {
  Json j;
  j["candidate"] = path;
  j["tokens"] = s.tokens;
  j["chunks"] = s.chunks;
  const auto add = [&](const char* key, const audit::Figure& figure) {
    j[key] = figure.value;
    j[std::string(key) + "_interval"] = interval_json(figure);
  };
  add("mean_kld", s.mean_kld);
  add("median_kld", s.median_kld);
  add("p90_kld", s.p90_kld);
  add("p99_kld", s.p99_kld);
  j["max_kld"] = s.max_kld;
  add("top1_agreement", s.top1_agreement);
  add("perplexity_ratio", s.perplexity_ratio);
  add("reference_perplexity", s.reference_perplexity);
  add("candidate_perplexity", s.candidate_perplexity);
  return j;
}

// "0.01234 (0.01200..0.01260)"
std::string figure_text(const audit::Figure& figure, int digits, double unit = 1) {
  std::string text = fmt::format("{:.{}f}", figure.value * unit, digits);
  if (figure.interval) {
    text += fmt::format(" ({:.{}f}..{:.{}f})", figure.interval->low * unit, digits,
                        figure.interval->high * unit, digits);
  }
  return text;
}

class AuditCommand final : public Command {
 public:
  std::string name() const override { return "audit"; }

  HelpText help() const override {
    return {
        .summary = "measures how far candidates are from a reference",
        .description =
            "Reads the same text with the reference and every candidate and compares what they "
            "expect next: KL(reference || candidate) per token in nats over the whole vocabulary, "
            "agreement of the most likely token, and the ratio of perplexities. The text is cut "
            "into chunks that begin with <bos>; every figure carries a 95 % interval, from a "
            "bootstrap over chunks.\n"
            "The reference is also compared with itself, read in steps of another size: that is "
            "the noise floor, and it is 0.\n"
            "The text is tokenized by the reference's tokenizer. KLD measures fidelity to the "
            "reference, not quality.",
        .examples = {
            {"carat audit teacher/ model-q4_0.gguf --text held-out.txt", "what 4 bits cost"},
            {"carat audit teacher/ a.gguf b.gguf --text t.txt --json",
             "several candidates over the same tokens"},
            {"carat audit teacher/ a.gguf --text t.txt --max-kld 0.02",
             "exit code 3 if the mean is above 0.02"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "REF",
         .target = &reference_,
         .required = true,
         .help = "the reference: GGUF file or model directory"},
        {.names = "CAND",
         .target = &candidates_,
         .required = true,
         .help = "what is compared with it"},
        {.names = "--text",
         .value = "FILE",
         .target = &text_,
         .required = true,
         .help = "plain UTF-8 text that neither model was fitted to"},
        {.names = "--context",
         .value = "N",
         .target = &options_.context,
         .help = "tokens a chunk, <bos> included",
         .lowest = 2,
         .highest = 1 << 20},
        {.names = "--min-context",
         .value = "N",
         .target = &options_.min_context,
         .help = "tokens of a chunk before the first that is compared",
         .lowest = 1,
         .highest = 1 << 20},
        {.names = "--max-tokens",
         .value = "N",
         .target = &options_.max_positions,
         .help = "ends after the chunk that reaches so many compared tokens; 0: all of the text",
         .lowest = 0},
        {.names = "--max-kld",
         .value = "X",
         .target = &max_kld_,
         .help = "check: exit 3 unless every candidate's mean KLD is at most X",
         .lowest = 0},
        {.names = "--seed",
         .value = "S",
         .target = &seed_,
         .help = "of the bootstrap",
         .lowest = 0},
        {.names = "--resamples",
         .value = "N",
         .target = &options_.summary.resamples,
         .help = "of the bootstrap",
         .lowest = 10,
         .highest = 1e6},
        kv_option(&kv_),
        threads_option(&threads_),
        json_option(&json_)};
  }

  int run(const Environment& environment) override {
    if (options_.min_context >= options_.context) {
      throw UsageError("--min-context must be less than --context");
    }
    options_.summary.seed = static_cast<uint64_t>(seed_);
    const auto& table = kernels::choose_kernels(environment.isa);
    ThreadPool pool(resolve_threads(threads_));

    const model::Model reference_model = open_model(reference_, pool);
    std::vector<model::Model> models;
    for (const std::string& path : candidates_) models.push_back(open_model(path, pool));
    const text::Tokenizer& tokenizer = require_tokenizer(reference_model);
    check_tokens(tokenizer, reference_model);
    const std::vector<int32_t> tokens = tokenizer.encode(read_text_file(text_, kMaxTextBytes));

    audit::ModelLogits reference(reference_model, kv_type(kv_), options_.context, pool, table);
    std::vector<std::unique_ptr<audit::ModelLogits>> owned;
    std::vector<audit::LogitSource*> sources;
    for (const model::Model& model : models) {
      owned.push_back(
          std::make_unique<audit::ModelLogits>(model, kv_type(kv_), options_.context, pool, table));
      sources.push_back(owned.back().get());
    }
    Progress progress("tokens");
    const audit::AuditResult result = audit::run_audit(
        reference, sources, tokens, tokenizer.vocab().special.bos, options_, pool,
        [&](int64_t done, int64_t total) { progress.update(done, total); }, environment.stop);
    progress.finish();
    if (json_) {
      print_json(result, table.isa);
    } else {
      print_table(result);
    }
    return verdict(result);
  }

 private:
  // The reference's tokenizer must fit its own weights, and chunks need <bos>.
  static void check_tokens(const text::Tokenizer& tokenizer, const model::Model& model) {
    if (tokenizer.vocab().size() > model.config().vocab_size) {
      throw Error({"the tokenizer has more tokens than the model",
                   model.path,
                   {},
                   std::to_string(model.config().vocab_size),
                   std::to_string(tokenizer.vocab().size()),
                   {}});
    }
    if (tokenizer.vocab().special.bos == text::kNoToken) {
      throw Error({"the tokenizer has no <bos>", model.path, {}, {}, {}, {}});
    }
  }

  int verdict(const audit::AuditResult& result) const {
    if (!max_kld_) return kDone;
    int code = kDone;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const double kld = result.candidates[i].mean_kld.value;
      if (kld <= *max_kld_) continue;
      fmt::print(stderr, "carat audit: {}: mean KLD {:.6f} is above {}\n", candidates_[i], kld,
                 *max_kld_);
      code = kCheckFailed;
    }
    return code;
  }

  void print_json(const audit::AuditResult& result, const char* isa) const {
    Json j;
    j["reference"] = *reference_;
    j["text"] = text_;
    j["direction"] = "KL(reference || candidate)";
    j["log_base"] = "e";
    j["context"] = options_.context;
    j["min_context"] = options_.min_context;
    j["kv"] = kv_;
    j["interval"] = "95 %, percentile bootstrap over chunks";
    j["seed"] = seed_;
    j["resamples"] = options_.summary.resamples;
    j["noise_kld"] = result.noise_kld;
    j["version"] = version();
    j["commit"] = commit();
    j["isa"] = isa;
    Json list = Json::array();
    for (size_t i = 0; i < candidates_.size(); ++i) {
      list.push_back(candidate_json(candidates_[i], result.candidates[i]));
    }
    // A single candidate's figures stand at the top level too, for scripts that want one number.
    if (list.size() == 1) j.update(list[0]);
    j["candidates"] = std::move(list);
    fmt::print("{}\n", to_json_text(j, 2));
  }

  void print_table(const audit::AuditResult& result) const {
    const audit::Summary& first = result.candidates.front();
    fmt::print("reference {}  perplexity {}\n", *reference_,
               figure_text(first.reference_perplexity, 3));
    fmt::print(
        "text {}  {} tokens in {} chunks of {}, <bos> first, {} tokens of context at least\n",
        text_, first.tokens, first.chunks, options_.context, options_.min_context);
    fmt::print(
        "KLD is KL(reference || candidate) in nats a token; noise floor {}; (95 % intervals)\n\n",
        result.noise_kld);
    // Intervals where decisions are made; --json has them all.
    Table table({"candidate", "mean KLD", "median", "p99", "top-1 %", "perplexity ratio"});
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const audit::Summary& s = result.candidates[i];
      table.add({candidates_[i], figure_text(s.mean_kld, 5),
                 fmt::format("{:.5f}", s.median_kld.value), fmt::format("{:.4f}", s.p99_kld.value),
                 figure_text(s.top1_agreement, 2, 100), figure_text(s.perplexity_ratio, 4)});
    }
    fmt::print("{}", table.text());
    if (first.chunks < 10) {
      fmt::print(stderr, "note: {} chunks are too few for intervals to trust\n", first.chunks);
    }
  }

  ModelName reference_;
  std::vector<std::string> candidates_;
  std::string text_;
  audit::AuditOptions options_;
  std::optional<double> max_kld_;
  int64_t seed_ = 1;
  std::string kv_ = "f32";
  int64_t threads_ = 0;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_audit_command() { return std::make_unique<AuditCommand>(); }

}  // namespace carat::app
