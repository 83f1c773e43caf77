#include "app/audit_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <utility>

#include "app/audit_inputs.h"
#include "app/audit_tensors.h"
#include "app/audit_text.h"
#include "app/memory.h"
#include "app/outputs.h"
#include "app/progress.h"
#include "app/version.h"
#include "audit/differences.h"
#include "audit/greedy.h"
#include "audit/model_logits.h"
#include "audit/resume.h"
#include "audit/streamed.h"
#include "audit/worst_tokens.h"
#include "base/error.h"
#include "base/sha256.h"

namespace carat::app {
namespace {

constexpr int64_t kOtherStep = 7;  // of the reference read again

class AuditRun {
 public:
  AuditRun(const AuditRequest& request, const Environment& environment)
      : request_(request),
        environment_(environment),
        table_(kernels::choose_kernels(environment.isa)),
        pool_(request.threads),
        other_pool_(request.threads == 1 ? 2 : 1),
        opened_(pool_) {}

  std::optional<audit::AuditReport> run() {
    parse_models();
    check_request();
    check_files();
    read_text();
    if (!check_overlap()) return std::nullopt;
    open_models();
    open_state();
    open_save();
    audit::AuditHooks hooks{
        .state = state_.get(), .progress = {}, .stop = environment_.stop, .save = save_.get()};
    hooks.progress = [this](const audit::AuditProgress& p) { show(p); };
    const audit::AuditResult result =
        audit::run_audit(models_, chunks(), request_.audit, pool_, hooks);
    if (save_) save_->commit();
    progress_.finish();
    add_comparisons(result);
    add_differences(result);
    if (request_.greedy_tokens) add_greedy();
    if (request_.tensors && !stored_) {
      add_tensor_errors(references_, candidates_, report_, pool_, environment_.stop);
    }
    add_findings(result);
    return std::move(report_);
  }

 private:
  std::span<const audit::Chunk> chunks() const { return text_.corpus.chunks; }

  void parse_models() {
    references_.push_back(parse_model_spec(request_.reference, request_.kv));
    if (request_.second_reference) {
      references_.push_back(parse_model_spec(*request_.second_reference, request_.kv));
    }
    for (const std::string& c : request_.candidates) {
      candidates_.push_back(parse_model_spec(c, request_.kv));
    }
  }

  bool is_stored(const ModelSpec& spec) const {
    std::error_code code;
    return std::filesystem::is_regular_file(spec.path, code) && audit::is_stored_teacher(spec.path);
  }

  bool saves_kld() const {
    return request_.save_reference && request_.save_reference->ends_with(".kld");
  }

  // What cannot go together, before anything is read.
  void check_request() const {
    const bool stored = is_stored(references_.front());
    const auto refuse = [](const char* why) { throw UsageError(why); };
    if (stored && request_.greedy_tokens) refuse("--greedy: stored predictions do not write on");
    if (stored && request_.memory) refuse("--memory: stored predictions are not run");
    if (stored && request_.asks_tensors) refuse("--tensors: stored predictions have no weights");
    if (request_.memory && request_.greedy_tokens) {
      refuse("--greedy: a reference that is run layer by layer (--memory) does not write on");
    }
    if (!request_.save_reference) return;
    const std::string& path = *request_.save_reference;
    if (!saves_kld() && !path.ends_with(".carat-ref")) {
      throw UsageError(
          fmt::format("--save-reference: '{}' does not end in .kld or .carat-ref", path));
    }
    if (stored) refuse("--save-reference: the reference is such a file already");
    if (request_.state) {
      refuse("--save-reference: not with --state, whose finished chunks are not run again");
    }
    if (saves_kld() && request_.audit.precision > 0) {
      refuse(
          "--save-reference: not with --precision, as a .kld file must be complete; a "
          ".carat-ref need not");
    }
  }

  // Nothing that is read is written over.
  void check_files() const {
    std::vector<std::string> inputs;
    for (const ModelSpec& m : references_) inputs.push_back(m.path);
    for (const ModelSpec& m : candidates_) inputs.push_back(m.path);
    for (const std::string& text : request_.texts) {
      inputs.push_back(text);  // may be DOMAIN=FILE
      inputs.push_back(text.substr(text.find('=') + 1));
    }
    inputs.insert(inputs.end(), request_.calibration.begin(), request_.calibration.end());
    const std::string hint = "remove it, or give another name";
    std::vector<Output> outputs;
    if (request_.state) {
      outputs.push_back({.option = "--state", .path = *request_.state, .force = true});
    }
    if (request_.save_reference) {
      outputs.push_back({.option = "--save-reference",
                         .path = *request_.save_reference,
                         .is_ours = audit::is_stored_teacher,
                         .hint = hint});
    }
    if (request_.html) {
      outputs.push_back(
          {.option = "--html", .path = *request_.html, .is_ours = is_page, .hint = hint});
    }
    check_outputs(outputs, inputs);
  }

  // Text comes from files, or is what a stored reference was made from.
  void read_text() {
    const bool stored = is_stored(references_.front());
    if (references_.size() > 1 && (stored || is_stored(references_.back()))) {
      throw UsageError("a file of stored predictions cannot be one of two references");
    }
    if (stored != request_.texts.empty()) {
      throw UsageError(stored ? "--text: a file of stored predictions brings its own text"
                              : "something is missing: --text is required");
    }
    if (!stored) {
      text_ = read_audit_text(request_, references_.front().path);
      if (text_.chat) {
        fmt::print(stderr,
                   "note: the text is put into the model's chat template; --raw reads it "
                   "as it is\n");
      }
      if (saves_kld()) leave_out_shorter();
      return;
    }
    text_.tokenizer = audit_tokenizer(candidates_.front().path);
    stored_ =
        audit::open_stored_teacher(references_.front().path, text_.tokenizer->vocab().special.bos);
    for (int64_t c = 0; c < stored_->chunk_count(); ++c) {
      text_.corpus.chunks.push_back(stored_->chunk(c));
    }
    text_.corpus.domains = stored_->origin().domains;
    text_.chat = stored_->origin().format == "chat";
  }

  // A .kld file has no room for the shorter pieces at the ends of texts; llama.cpp leaves them out
  // too.
  void leave_out_shorter() {
    auto& all = text_.corpus.chunks;
    size_t longest = 0;
    for (const audit::Chunk& chunk : all) longest = std::max(longest, chunk.tokens.size());
    const size_t before = all.size();
    std::erase_if(all, [&](const audit::Chunk& c) { return c.tokens.size() < longest; });
    if (all.size() == before) return;
    fmt::print(stderr, "note: chunks left out because a .kld file needs equal lengths: {}\n",
               before - all.size());
  }

  bool check_overlap() {
    if (!text_.overlap) return true;
    const audit::Overlap& o = *text_.overlap;
    const bool passed = o.share() <= request_.max_overlap;
    std::string detail =
        fmt::format("{} of {} windows of {} tokens ({:.3f} %) occur in the calibration text",
                    o.shared, o.windows, audit::kOverlapTokens, 100 * o.share());
    if (!passed) {
      fmt::print(stderr, "carat audit: the texts overlap: {}, more than --max-overlap {:g} %\n",
                 detail, 100 * request_.max_overlap);
    }
    report_.checks.push_back({"disjoint text", passed, std::move(detail)});
    return passed;
  }

  void open_models() {
    const bool mapped = request_.memory.has_value();
    for (const ModelSpec& spec : references_) {
      if (stored_) {
        models_.references.push_back({.model = nullptr, .stored = stored_.get()});
        const std::string& of = stored_->origin().model;
        report_.references.push_back(
            {.path = spec.text,
             .what = of.empty() ? "stored predictions" : "stored predictions of " + of});
        report_.references.back().files.push_back(file_info(spec.path, true));
        report_.references.back().bytes = report_.references.back().files.front().bytes;
        continue;
      }
      const OpenedModel& opened = opened_.open(spec.path, mapped);
      print_notes(opened.model);
      models_.references.push_back({.model = source_of(spec, mapped, pool_), .stored = nullptr});
      report_.references.push_back(model_info(spec, opened));
    }
    check_roles();
    for (const ModelSpec& spec : candidates_) {
      const bool is_reference = std::any_of(references_.begin(), references_.end(),
                                            [&](auto& r) { return mapped && r.path == spec.path; });
      models_.candidates.push_back(source_of(spec, is_reference, pool_));
      report_.candidates.push_back(model_info(spec, opened_.open(spec.path, is_reference)));
    }
    if (!stored_) {
      if (!mapped) again(references_.front(), false, kOtherStep, pool_);
      again(references_.front(), mapped, 0, other_pool_);
    }
  }

  // Which is the original and which was trained for quantization must be known of two.
  void check_roles() const {
    if (report_.references.size() < 2) return;
    if (report_.references[0].what != report_.references[1].what) return;
    throw UsageError(
        fmt::format("both references look like {}: say which is which with PATH@role=original and "
                    "PATH@role=qat",
                    report_.references[0].what));
  }

  // A source for a model with its K/V type; the same one for the same model and type.
  audit::LogitSource* source_of(const ModelSpec& spec, bool streamed, ThreadPool& pool) {
    const std::string key = spec.path + "@" + spec.kv;
    auto& slot = sources_[key];
    if (!slot) slot = make_source(spec, streamed, 0, pool);
    return slot.get();
  }

  std::unique_ptr<audit::LogitSource> make_source(const ModelSpec& spec, bool streamed,
                                                  int64_t step, ThreadPool& pool) {
    const OpenedModel& opened = opened_.open(spec.path, streamed);
    if (streamed) {
      audit::StreamedLogits::Options o;
      o.kv = kv_type(spec.kv);
      o.memory = *request_.memory;
      o.name = spec.text;
      o.stop = environment_.stop;
      o.progress = [this](int64_t layer, int64_t layers, int64_t tokens) {
        layers_.update(layer, layers, fmt::format("{} tokens of the reference", tokens));
      };
      return std::make_unique<audit::StreamedLogits>(opened.model, o, request_.corpus.context, pool,
                                                     table_);
    }
    audit::ModelLogits::Options o;
    o.kv = kv_type(spec.kv);
    o.context = context_of(opened.model);
    if (step > 0) o.step = step;
    o.name = spec.text;
    return std::make_unique<audit::ModelLogits>(opened.model, o, pool, table_);
  }

  // Tokens of a chunk, and room for greedy answers where the model has it.
  int64_t context_of(const model::Model& model) const {
    int64_t context = request_.corpus.context;
    if (stored_) context = stored_->context();
    if (!request_.greedy_tokens) return context;
    const int64_t more = context + *request_.greedy_tokens;
    return std::max(context, std::min(more, model.config().max_seq_len));
  }

  void again(const ModelSpec& spec, bool streamed, int64_t step, ThreadPool& pool) {
    again_.push_back(make_source(spec, streamed, step, pool));
    models_.again.push_back(again_.back().get());
  }

  void open_state() {
    if (!request_.state) return;
    Json key;
    key["version"] = version();
    key["commit"] = commit();
    key["isa"] = table_.isa;
    Sha256 tokens;
    for (const audit::Chunk& chunk : chunks()) {
      const auto add = [&](const std::vector<int32_t>& values) {
        const auto n = static_cast<int64_t>(values.size());
        tokens.update(std::as_bytes(std::span(&n, 1)));
        tokens.update(std::as_bytes(std::span(values)));
      };
      add(chunk.tokens);
      add(chunk.compared);
    }
    key["chunks"] = chunks().size();
    key["tokens_sha256"] = to_hex(tokens.digest());
    const auto add = [&](const char* name, const std::vector<ModelSpec>& specs) {
      key[name] = Json::array();
      for (const ModelSpec& spec : specs) {
        Json model;
        model["kv"] = spec.kv;
        const bool is_file = stored_ && &specs == &references_;
        model["files"] =
            file_marks(is_file ? std::vector<std::string>{spec.path} : opened_.paths(spec.path));
        key[name].push_back(std::move(model));
      }
    };
    add("references", references_);
    add("candidates", candidates_);
    state_ = std::make_unique<audit::AuditState>(*request_.state, key);
  }

  void open_save() {
    if (!request_.save_reference) return;
    const audit::ModelInfo& model = report_.references.front();
    audit::TeacherPlan plan;
    plan.vocab_size = models_.references.front().model->vocab_size();
    for (const size_t c : audit::visiting_order(chunks().size(), request_.audit)) {
      plan.chunks.push_back(chunks()[c]);
    }
    plan.origin.model = model.path;
    // The last file is the weights' where there are no shards.
    const OpenedModel& opened = opened_.open(references_.front().path, request_.memory.has_value());
    if (opened.model.source->paths().size() == 1) {
      plan.origin.model_sha256 = model.files.back().sha256;
    }
    plan.origin.engine =
        fmt::format("carat {} (commit {}, {}, kv {})", version(), commit(), table_.isa, model.kv);
    for (const audit::TextCounts& file : text_.corpus.files) {
      plan.origin.texts.push_back({file.path, file.sha256});
    }
    plan.origin.domains = text_.corpus.domains;
    plan.origin.format = text_.chat ? "chat" : "raw";
    plan.origin.context = request_.corpus.context;
    plan.origin.min_context = request_.corpus.min_context;
    save_ = audit::make_teacher_writer(*request_.save_reference, plan);
  }

  void show(const audit::AuditProgress& p) {
    layers_.finish();
    std::string note;
    int64_t total = p.total;
    if (p.mean_kld) {
      note = fmt::format("KLD {:.5f} +- {:.1f} %", *p.mean_kld, 100 * p.relative_half_width);
      if (request_.audit.precision > 0) {
        // Widths shrink with the root of the number of chunks.
        const double more = p.relative_half_width / request_.audit.precision;
        total = std::clamp(static_cast<int64_t>(static_cast<double>(p.done) * more * more), p.done,
                           p.total);
      }
    }
    progress_.update(p.done, total, note);
  }

  void add_comparisons(const audit::AuditResult& result) {
    for (const audit::PairResult& pair : result.pairs) {
      audit::Comparison c;
      c.reference = pair.reference;
      c.candidate = pair.candidate;
      std::vector<int32_t> domains;
      for (const size_t i : result.finished) domains.push_back(chunks()[i].domain);
      c.summary = audit::summarize(pair.positions, request_.audit.summary, domains, &pool_);
      c.worst = audit::find_worst(pair.positions);
      const auto tokens_of = [&](int64_t i) {
        return std::span<const int32_t>(chunks()[result.finished[static_cast<size_t>(i)]].tokens);
      };
      audit::describe(c.worst, tokens_of, [&](std::span<const int32_t> tokens) {
        return text_.tokenizer->decode(tokens, true);
      });
      report_.comparisons.push_back(std::move(c));
    }
  }

  void add_differences(const audit::AuditResult& result) {
    for (size_t r = 0; r < references_.size(); ++r) {
      std::vector<std::span<const std::vector<audit::Position>>> positions;
      for (const audit::PairResult& pair : result.pairs) {
        if (pair.reference == r) positions.push_back(pair.positions);
      }
      for (audit::Difference& d :
           audit::paired_differences(positions, request_.audit.summary, &pool_)) {
        d.reference = r;
        report_.differences.push_back(d);
      }
    }
  }

  void add_greedy() {
    audit::GreedyOptions options;
    options.tokens = *request_.greedy_tokens;
    options.prompts = request_.greedy_prompts;
    options.seed = request_.audit.summary.seed;
    options.stop_ids = opened_.open(references_.front().path, false).model.generation.stop_ids;
    Progress progress("greedy answers");
    audit::AuditHooks hooks{
        .state = state_.get(), .progress = {}, .stop = environment_.stop, .save = nullptr};
    hooks.progress = [&](const audit::AuditProgress& p) { progress.update(p.done, p.total); };
    auto found = audit::run_greedy(models_, chunks(), options, hooks);
    for (size_t i = 0; i < found.size(); ++i) report_.comparisons[i].greedy = std::move(found[i]);
  }

  void add_findings(const audit::AuditResult& result) {
    for (const double kld : result.noise_kld) report_.noise_kld = std::max(report_.noise_kld, kld);
    if (!stored_) {
      report_.noise_how = request_.memory
                              ? "by another number of threads"
                              : "in steps of another size, and by another number of threads";
    }
    if (result.precise) {
      std::string detail = fmt::format(
          "{} of {} chunks read, in an order drawn by seed {}; half the interval of a mean KLD is "
          "{} {:g} % of it",
          result.finished.size(), chunks().size(), request_.audit.summary.seed,
          *result.precise ? "at most" : "still more than", 100 * request_.audit.precision);
      report_.checks.push_back({"precision", *result.precise, std::move(detail)});
    }
    fill_provenance();
  }

  // As asked for; a .kld does not say, but compares from the middle of its chunks on.
  int64_t stored_min_context() const {
    const int64_t said = stored_->origin().min_context;
    return said > 0 ? said : chunks().front().compared.front() + 1;
  }

  void fill_provenance() {
    audit::Provenance& from = report_.provenance;
    from.version = version();
    from.commit = commit();
    from.isa = table_.isa;
    from.threads = request_.threads;
    from.command_line = environment_.command_line;
    const audit::Corpus& corpus = text_.corpus;
    for (size_t i = 0; i < corpus.files.size(); ++i) {
      const audit::TextCounts& file = corpus.files[i];
      from.texts.push_back({.file = {.path = file.path, .bytes = file.bytes, .sha256 = file.sha256},
                            .domain = corpus.domains[static_cast<size_t>(file.domain)],
                            .tokens = file.tokens});
    }
    if (stored_) {
      for (const auto& text : stored_->origin().texts) {
        from.texts.push_back(
            {.file = {.path = text.path, .bytes = 0, .sha256 = text.sha256}, .domain = {}});
      }
    }
    from.format = text_.chat ? "chat" : "raw";
    from.kv = request_.kv;
    from.context = stored_ ? stored_->context() : request_.corpus.context;
    from.min_context = request_.corpus.min_context;
    if (stored_) from.min_context = stored_min_context();
    from.max_positions = request_.corpus.max_positions;
    from.precision = request_.audit.precision;
    from.seed = request_.audit.summary.seed;
    from.resamples = request_.audit.summary.resamples;
    if (corpus.domains.size() > 1) report_.domains = corpus.domains;
  }

  const AuditRequest& request_;
  const Environment& environment_;
  const kernels::KernelTable& table_;
  ThreadPool pool_, other_pool_;
  OpenedModels opened_;
  std::vector<ModelSpec> references_, candidates_;
  AuditText text_;
  std::unique_ptr<audit::StoredTeacher> stored_;
  std::map<std::string, std::unique_ptr<audit::LogitSource>> sources_;
  std::vector<std::unique_ptr<audit::LogitSource>> again_;
  audit::AuditModels models_;
  std::unique_ptr<audit::AuditState> state_;
  std::unique_ptr<audit::TeacherWriter> save_;
  audit::AuditReport report_;
  Progress progress_{"tokens"}, layers_{"layers"};
};

}  // namespace

std::optional<audit::AuditReport> make_audit_report(const AuditRequest& request,
                                                    const Environment& environment) {
  return AuditRun(request, environment).run();
}

}  // namespace carat::app
