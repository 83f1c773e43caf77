#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "app/audit_run.h"
#include "app/audit_table.h"
#include "app/command.h"
#include "app/exit_code.h"
#include "app/memory.h"
#include "audit/page/page.h"
#include "audit/report_json.h"
#include "base/file.h"
#include "base/json.h"

namespace carat::app {
namespace {

// "2%" or "0.02".
double parse_share(const std::string& text, const std::string& option, bool may_be_none = false) {
  const bool percent = text.ends_with('%');
  const std::string number = percent ? text.substr(0, text.size() - 1) : text;
  size_t used = 0;
  double value = -1;
  try {
    value = std::stod(number, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (percent) value /= 100;
  if (number.empty() || used != number.size() || !(value >= 0 && value < 1) ||
      (value == 0 && !may_be_none)) {
    throw UsageError(fmt::format("{}: '{}' is no share such as 2% or 0.02", option, text));
  }
  return value;
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
            "agreement of the most likely token, and the ratio of perplexities. Every figure "
            "carries a 95 % interval, from a bootstrap over chunks of the text.\n"
            "A model is a GGUF file or a directory. PATH@kv=int8 runs it with keys and values of "
            "that type; PATH@role=original and PATH@role=qat say which of two references is "
            "which, where their weights do not.\n"
            "A text is plain UTF-8, or a .jsonl file of conversations ({\"messages\": [...]}) or "
            "texts ({\"text\": ...}), one a line. Conversations are rendered by the model's chat "
            "template and only the model's turns are compared. For an instruction-tuned reference, "
            "plain text becomes the model's answer in a chat; --raw reads it as it is.\n"
            "The reference is also compared with itself, computed in other ways: that is the noise "
            "floor, and it is 0. KLD measures fidelity to the reference, not quality.",
        .examples = {
            {"carat audit teacher/ model-q4_0.gguf --text held-out.txt", "what 4 bits cost"},
            {"carat audit teacher/ a.gguf b.gguf --text prose=t.txt --text chat=c.jsonl --json",
             "several candidates over the same tokens of two domains"},
            {"carat audit original/ qat/ q4_0.gguf --second-reference qat/ --text t.txt",
             "against both references, and how far they are from each other"},
            {"carat audit m.gguf@kv=f16 m.gguf@kv=int8 m.gguf@kv=int4r --text t.txt",
             "what smaller keys and values cost"},
            {"carat audit teacher/ a.gguf --text t.txt --precision 2% --state a.state",
             "ends when the mean is known to 2 %, and goes on where it was interrupted"},
            {"carat audit teacher/ teacher/ --text t.txt --save-reference t.carat-ref",
             "keeps the teacher's predictions; then: carat audit t.carat-ref a.gguf"},
            {"carat audit teacher/ a.gguf --text t.txt --calibration c.txt --max-kld 0.02",
             "exit code 3 if the texts overlap, or if the mean is above 0.02"}}};
  }

  std::vector<Option> options() override {
    auto options = inputs();
    const auto add = [&](std::vector<Option> more) {
      options.insert(options.end(), more.begin(), more.end());
    };
    add(extent());
    add(extras());
    return options;
  }

  int run(const Environment& environment) override {
    if (request_.corpus.min_context >= request_.corpus.context) {
      throw UsageError("--min-context must be less than --context");
    }
    request_.audit.summary.seed = static_cast<uint64_t>(seed_);
    if (precision_) request_.audit.precision = parse_share(*precision_, "--precision");
    request_.max_overlap = parse_share(max_overlap_, "--max-overlap", true);
    if (tensors_ && no_tensors_) throw UsageError("--tensors and --no-tensors exclude each other");
    if (memory_) request_.memory = parse_bytes(*memory_, "--memory");
    request_.asks_tensors = tensors_.has_value();
    request_.tensors = tensors_ || !(no_tensors_ || memory_);
    request_.threads = resolve_threads(threads_);
    request_.html = html_;
    const std::optional<audit::AuditReport> report = make_audit_report(request_, environment);
    if (!report) return kCheckFailed;
    if (json_) {
      fmt::print("{}\n", to_json_text(audit::report_json(*report), 2));
    } else {
      print_audit(*report, tensors_.value_or(0));
    }
    if (html_) write_page(*report);
    return verdict(*report);
  }

 private:
  std::vector<Option> inputs() {
    return {{.names = "REF",
             .target = &request_.reference,
             .required = true,
             .help = "the reference: a model, or a file of stored predictions"},
            {.names = "CAND",
             .target = &request_.candidates,
             .required = true,
             .help = "what is compared with it"},
            {.names = "--second-reference",
             .value = "REF",
             .target = &request_.second_reference,
             .help = "another one, with which every candidate is compared too"},
            {.names = "--text",
             .value = "[DOMAIN=]FILE",
             .target = &request_.texts,
             .help = "text that no model was fitted to; may be given several times"},
            {.names = "--raw",
             .target = &request_.raw,
             .help = "plain text is not put into the chat template"},
            {.names = "--calibration",
             .value = "FILE",
             .target = &request_.calibration,
             .help = "text that a candidate was fitted to: checks that it and --text are disjoint; "
                     "may be given several times"},
            {.names = "--max-overlap",
             .value = "SHARE",
             .target = &max_overlap_,
             .help = "most of the text's windows of 13 tokens that may occur in --calibration; "
                     "above it nothing is computed and the exit code is 3"}};
  }

  std::vector<Option> extent() {
    return {{.names = "--context",
             .value = "N",
             .target = &request_.corpus.context,
             .help = "tokens a chunk, <bos> included",
             .lowest = 2,
             .highest = 1 << 20},
            {.names = "--min-context",
             .value = "N",
             .target = &request_.corpus.min_context,
             .help = "tokens of a chunk before the first that is compared",
             .lowest = 1,
             .highest = 1 << 20},
            {.names = "--max-tokens",
             .value = "N",
             .target = &request_.corpus.max_positions,
             .help = "ends after the chunk that reaches so many compared tokens; 0: all of the "
                     "text. Of several texts, chunks are taken in turn",
             .lowest = 0},
            {.names = "--precision",
             .value = "SHARE",
             .target = &precision_,
             .help = "ends when half the interval of every mean KLD is at most so much of it "
                     "(2%); chunks are then read in an order drawn by the seed",
             .default_text = "reads all"},
            {.names = "--state",
             .value = "FILE",
             .target = &request_.state,
             .help = "keeps what is finished in FILE; the same command goes on from there"},
            {.names = "--save-reference",
             .value = "FILE",
             .target = &request_.save_reference,
             .help = "keeps what REF predicts, to be given as REF later: .carat-ref (about 1 kB a "
                     "compared token, KLD is estimated) or .kld (2 bytes a token of the "
                     "vocabulary, readable by llama.cpp)"},
            {.names = "--seed",
             .value = "S",
             .target = &seed_,
             .help = "of the bootstrap and of what is drawn",
             .lowest = 0},
            {.names = "--resamples",
             .value = "N",
             .target = &request_.audit.summary.resamples,
             .help = "of the bootstrap",
             .lowest = 10,
             .highest = 1e6}};
  }

  std::vector<Option> extras() {
    return {{.names = "--greedy",
             .value = "N",
             .target = &request_.greedy_tokens,
             .help = "also generates N most likely tokens after prompts from the text and tells "
                     "where the candidates' answers leave the reference's",
             .lowest = 1,
             .highest = 1 << 16,
             .default_text = "does not"},
            {.names = "--prompts",
             .value = "M",
             .target = &request_.greedy_prompts,
             .help = "for --greedy",
             .lowest = 1,
             .highest = 1 << 20},
            {.names = "--max-kld",
             .value = "X",
             .target = &max_kld_,
             .help = "check: exit 3 unless every candidate's mean KLD from REF is at most X",
             .lowest = 0},
            {.names = "--tensors",
             .value = "N",
             .target = &tensors_,
             .help = "also prints the N tensors of each candidate whose weights are furthest from "
                     "the reference's; --json and --html have all of them",
             .lowest = 1,
             .highest = 1e6,
             .default_text = "prints none"},
            {.names = "--no-tensors",
             .target = &no_tensors_,
             .help = "does not compare the weights of tensors, which reads every file once more; "
                     "with --memory it is done only if --tensors asks for it"},
            {.names = "--memory",
             .value = "SIZE",
             .target = &memory_,
             .help = "runs references layer by layer over many chunks at once within so much "
                     "memory (1.5GB), for those that do not fit it",
             .default_text = "loads them"},
            kv_option(&request_.kv),
            threads_option(&threads_),
            {.names = "--html",
             .value = "FILE",
             .target = &html_,
             .help = "also writes the report as one page (see carat report)"},
            json_option(&json_)};
  }

  void write_page(const audit::AuditReport& report) const {
    const std::string page = audit::audit_page(audit::report_json(report));
    AtomicFile file(*html_);
    file.write(page);
    file.commit();
  }

  int verdict(const audit::AuditReport& report) const {
    int code = kDone;
    for (const audit::Comparison& c : report.comparisons) {
      const double kld = c.summary.mean_kld.value;
      if (!max_kld_ || c.reference != 0 || kld <= *max_kld_) continue;
      fmt::print(stderr, "carat audit: {}: mean KLD {:.6f} is above {}\n",
                 report.candidates[c.candidate].path, kld, *max_kld_);
      code = kCheckFailed;
    }
    return code;
  }

  AuditRequest request_;
  std::optional<std::string> precision_, memory_, html_;
  std::string max_overlap_ = "1%";
  std::optional<double> max_kld_;
  std::optional<int64_t> tensors_;
  int64_t seed_ = 1;
  int64_t threads_ = 0;
  bool no_tensors_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_audit_command() { return std::make_unique<AuditCommand>(); }

}  // namespace carat::app
