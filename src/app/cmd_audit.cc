#include <fmt/format.h>

#include <cstdio>

#include "app/audit_table.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/model_path.h"
#include "app/progress.h"
#include "app/version.h"
#include "audit/audit.h"
#include "audit/model_logits.h"
#include "audit/report_json.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace carat::app {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

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
    const std::string text = read_text_file(text_, kMaxTextBytes);
    const std::vector<int32_t> tokens = tokenizer.encode(text);

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
    const audit::AuditReport report =
        report_of(result, static_cast<int64_t>(text.size()), static_cast<int64_t>(tokens.size()),
                  table.isa, pool.size());
    if (json_) {
      fmt::print("{}\n", to_json_text(audit::report_json(report), 2));
    } else {
      print_audit(report);
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

  audit::AuditReport report_of(const audit::AuditResult& result, int64_t text_bytes,
                               int64_t text_tokens, const char* isa, int threads) const {
    audit::AuditReport report;
    audit::Provenance& from = report.provenance;
    from.version = version();
    from.commit = commit();
    from.isa = isa;
    from.threads = threads;
    from.texts.push_back({.file = {.path = text_, .bytes = text_bytes}, .tokens = text_tokens});
    from.kv = kv_;
    from.context = options_.context;
    from.min_context = options_.min_context;
    from.max_positions = options_.max_positions;
    from.seed = options_.summary.seed;
    from.resamples = options_.summary.resamples;
    report.references.push_back({.path = *reference_});
    for (size_t i = 0; i < candidates_.size(); ++i) {
      report.candidates.push_back({.path = candidates_[i]});
      report.comparisons.push_back({.candidate = i, .summary = result.candidates[i]});
    }
    report.noise_kld = result.noise_kld;
    report.noise_how = "in steps of another size";
    return report;
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
