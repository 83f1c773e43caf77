#include "quantize/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "calibrate/importance.h"
#include "calibrate/read_text.h"
#include "convert/side_files.h"
#include "convert/target.h"
#include "io/gguf_writer.h"
#include "kernels/cpu/dispatch.h"
#include "model/load.h"
#include "quantize/choices.h"
#include "quantize/feedback_run.h"
#include "quantize/job.h"
#include "quantize/round.h"
#include "tensor/dtype.h"

namespace carat::quantize {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

struct MethodName {
  Method method;
  const char* name;
};
constexpr MethodName kMethods[] = {{Method::kRound, "round"},
                                   {Method::kFeedback, "feedback"},
                                   {Method::kAutoRound, "auto_round"},
                                   {Method::kScales, "scales"}};

bool is_quantized_type(DType dtype) { return info(dtype).block_elements > 1; }

std::vector<MatrixPlan> matrices_of(const model::Config& config, const convert::Recipe& recipe) {
  std::vector<MatrixPlan> matrices;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    if (model::row_of(ref.kind).cls == model::TensorClass::kKeep) continue;
    matrices.push_back({ref, model::gguf_name(ref), convert::type_in(recipe, config, ref),
                        model::shape_of(config, ref)});
  }
  return matrices;
}

std::vector<std::vector<int32_t>> chunks_of(const model::Model& model,
                                            const QuantizeOptions& options) {
  if (options.text.empty()) return {};
  if (model.tokenizer == nullptr) {
    throw Error(
        {"the model has no tokenizer to read the text with", options.source, {}, {}, {}, {}});
  }
  const text::Vocab& vocab = model.tokenizer->vocab();
  if (vocab.special.bos == text::kNoToken) {
    throw Error({"the tokenizer has no <bos>", options.source, {}, {}, {}, {}});
  }
  const auto tokens = model.tokenizer->encode(read_text_file(options.text, kMaxTextBytes));
  const auto chunks = calibrate::calibration_chunks(tokens, vocab.special.bos,
                                                    {options.context, options.max_tokens});
  if (chunks.empty()) throw Error({"the text is empty", options.text, {}, {}, {}, {}});
  return chunks;
}

// One quantization on its way.
class Run {
 public:
  explicit Run(const QuantizeOptions& options)
      : options_(options),
        pool_(options.threads),
        table_(kernels::choose_kernels(options.isa)),
        recipe_(options.recipe),
        checkpoint_(io::open_checkpoint(options.source)),
        side_(convert::read_side_files(checkpoint_)),
        rows_(checkpoint_, model::config_of(checkpoint_)) {
    model::LoadOptions load;
    load.pack = true;
    load.packing.only_codes = true;
    load.packing.pool = &pool_;
    check_files();
    model_ = model::load_model(std::move(checkpoint_), load);
  }

  QuantizeReport run() {
    const auto begin = std::chrono::steady_clock::now();
    QuantizeReport report;
    report.options = options_;
    const auto chunks = chunks_of(model_, options_);
    for (const auto& chunk : chunks) report.tokens += static_cast<int64_t>(chunk.size());
    EncodedStore store(scratch());
    Job job{model_,
            rows_,
            matrices_of(model_.config(), recipe_),
            chunks,
            nullptr,
            store,
            options_.memory,
            pool_,
            table_,
            options_.progress,
            options_.stop};
    io::Imatrix imatrix;
    if (!options_.imatrix.empty()) {
      imatrix = io::read_imatrix(options_.imatrix);
      job.imatrix = &imatrix;
    }
    std::optional<TypeSearch> types;
    if (options_.search) {
      named([&] { types.emplace(job, *options_.search, fixed_bytes(), scratch()); });
    }
    if (options_.imatrix.empty() && !chunks.empty()) {
      imatrix.entries = importance(chunks);
      job.imatrix = &imatrix;
    }
    if (types) report.search = search(*types, &job);
    types.reset();
    if (!options_.recipe_only) encode_and_write(job, &report);
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
  }

 private:
  // What would be found out too late.
  void check_files() const {
    if (!options_.recipe_only) convert::check_target(convert_options(), *checkpoint_.tensors);
    if (options_.save_recipe.empty()) return;
    std::error_code ignored;
    if (!options_.overwrite && std::filesystem::exists(options_.save_recipe, ignored)) {
      throw Error(
          {"the file is there already", options_.save_recipe, {}, {}, {}, "--force replaces it"});
    }
    const AtomicFile writable(options_.save_recipe);
  }

  // Beside it lies what does not fit the memory.
  const std::string& scratch() const {
    const bool only = options_.recipe_only && !options_.save_recipe.empty();
    return only ? options_.save_recipe : options_.target;
  }

  // What `f` throws is of the source, if it names no file.
  template <class F>
  void named(F f) const try {
    f();
  } catch (const Error& e) {
    throw e.with_file(options_.source);
  }

  SearchReport search(TypeSearch& types, Job* job) {
    SearchReport found;
    named([&] { found = types.run(); });
    recipe_ = found.recipe;
    job->matrices = matrices_of(model_.config(), recipe_);
    if (options_.save_recipe.empty()) return found;
    const audit::Figure& kld = found.measured;
    Json about = {{"source", std::filesystem::path(options_.source).filename().string()},
                  {"text", std::filesystem::path(options_.text).filename().string()},
                  {"bytes", found.bytes},
                  {"mean_kld", kld.value}};
    if (kld.interval) about["mean_kld_interval"] = {kld.interval->low, kld.interval->high};
    write_recipe(options_.save_recipe, recipe_, about);
    return found;
  }

  // Of the target, all but its matrices.
  int64_t fixed_bytes() const {
    const model::Config& config = model_.config();
    std::vector<io::TensorSpec> specs;
    int64_t matrices = 0;
    for (const model::TensorRef ref : model::required_tensors(config)) {
      specs.push_back({model::gguf_name(ref), DType::kF32, model::shape_of(config, ref)});
      if (model::row_of(ref.kind).cls == model::TensorClass::kKeep) continue;
      matrices += bytes_in_file(DType::kF32, specs.back().shape);
    }
    const convert::TargetParts parts = gguf_parts(convert_options(), model_, side_, specs);
    return io::gguf_file_bytes(parts.fields, convert::all_specs(parts)) - matrices;
  }

  void encode_and_write(const Job& job, QuantizeReport* out) {
    QuantizeReport& report = *out;
    std::vector<MatrixResult> results = encode(job, &report.refined);
    for (MatrixResult& r : results) r.weighted_error = weighted_error(job, r.name);
    report.written = write(job.store);
    fill(job.matrices, results, &report);
    if (!report.search) return;
    CHECK(std::filesystem::file_size(options_.target) ==
          static_cast<uint64_t>(report.search->bytes));
    measure(job, &*report.search);
  }

  // The written file. It is whole whatever happens here.
  void measure(const Job& job, SearchReport* found) {
    std::vector<std::string>& notes = found->notes;
    try {
      found->written = measure_file(job, *options_.search, options_.target);
    } catch (const Interrupted&) {
      notes.emplace_back("interrupted before the written file was measured");
      return;
    } catch (const Error& e) {
      notes.push_back(fmt::format("the written file was not measured: {}", e.what()));
      return;
    }
    if (options_.method == Method::kRound) return;
    const char* const method = name_of(options_.method);
    notes.push_back(fmt::format(
        "codes of {} are fitted to all of the text, the chunks that check included: the written "
        "file's figure is too good there; carat audit measures it on another text",
        method));
    if (options_.search->kld && found->written->value > *options_.search->kld) {
      notes.push_back(fmt::format(
          "the written file's mean KLD is more than was asked for: types are chosen with codes of "
          "round, and those of {} are not held to it",
          method));
    }
  }

  std::vector<io::ImatrixEntry> importance(std::span<const std::vector<int32_t>> chunks) {
    calibrate::ReadCall call;
    call.weights = &model_.weights;
    call.chunks = chunks;
    call.stop = options_.stop;
    call.progress = [&](int64_t done, int64_t total) {
      if (options_.progress) options_.progress(done, total, "reading the text");
    };
    calibrate::SquareSums sums(model_.weights, pool_);
    named([&] { calibrate::read_chunks(call, sums, pool_, table_); });
    return sums.entries();
  }

  std::vector<MatrixResult> encode(const Job& job, std::vector<Refinement>* refined) try {
    if (options_.method == Method::kRound) return run_rounding(job);
    if (job.chunks.empty()) {
      throw Error({"this method needs a text", {}, "--text", {}, {}, {}});
    }
    const FeedbackOptions feedback = {options_.damping, options_.original_inputs};
    if (options_.method == Method::kFeedback) return run_feedback(job, feedback);
    const RefineOptions refine = {options_.start, feedback, options_.steps, options_.learning_rate};
    return options_.method == Method::kScales ? distill_scales(job, refine, *refined)
                                              : auto_round(job, refine, *refined);
  } catch (const Error& e) {
    throw e.with_file(options_.source);
  }

  convert::ConvertOptions convert_options() const {
    convert::ConvertOptions c;
    c.source = options_.source;
    c.target = options_.target;
    c.format = convert::Format::kGguf;
    c.recipe = recipe_;
    c.overwrite = options_.overwrite;
    // Float types of a recipe round too.
    c.accepted.add(convert::Loss::kRoundedWeights);
    return c;
  }

  convert::ConvertReport write(const EncodedStore& store) const {
    convert::ConvertOptions c = convert_options();
    c.encoded = &store;
    c.threads = options_.threads;
    c.note = options_.note;
    c.stop = options_.stop;
    if (options_.progress) {
      c.progress = [&](int64_t done, int64_t total, const std::string&) {
        options_.progress(done, total, "writing");
      };
    }
    return convert::convert(c);
  }

  static void fill(const std::vector<MatrixPlan>& matrices,
                   const std::vector<MatrixResult>& results, QuantizeReport* report) {
    std::unordered_map<std::string, const MatrixResult*> by_name;
    for (const MatrixResult& r : results) by_name[r.name] = &r;
    std::unordered_map<std::string, const convert::TensorReport*> written;
    for (const convert::TensorReport& t : report->written.tensors) written[t.name] = &t;
    for (const MatrixPlan& m : matrices) {
      const convert::TensorReport& t = *written.at(m.name);
      MatrixReport r{m.name,
                     t.to,
                     t.shape,
                     t.bytes,
                     is_quantized_type(t.to) ? "round" : "kept",
                     t.error.relative_rms(),
                     -1,
                     -1};
      // What convert wrote as Q4_0 has its errors among the lattice's.
      if (t.judged && t.lattice.squared_weights > 0) {
        r.error = std::sqrt(t.lattice.squared_error / t.lattice.squared_weights);
      }
      if (const auto found = by_name.find(m.name); found != by_name.end()) {
        r.method = found->second->method;
        r.weighted_error = found->second->weighted_error;
        r.output_error = found->second->output_error;
      }
      report->matrices.push_back(std::move(r));
    }
  }

  const QuantizeOptions& options_;
  ThreadPool pool_;
  const kernels::KernelTable& table_;
  convert::Recipe recipe_;     // of the target
  io::Checkpoint checkpoint_;  // moved into the model
  convert::SideFiles side_;
  SourceRows rows_;
  model::Model model_;
};

}  // namespace

const char* name_of(Method method) {
  for (const MethodName& m : kMethods) {
    if (m.method == method) return m.name;
  }
  CHECK(false);
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const MethodName& m : kMethods) names.emplace_back(m.name);
  return names;
}

Method method_from_name(std::string_view name) {
  for (const MethodName& m : kMethods) {
    if (name == m.name) return m.method;
  }
  throw Error({"unknown method",
               {},
               "--method",
               fmt::format("{}", fmt::join(method_names(), ", ")),
               std::string(name),
               {}});
}

QuantizeReport quantize(const QuantizeOptions& options) {
  CHECK(options.threads >= 1 && options.damping > 0);
  return Run(options).run();
}

Json to_json(const QuantizeReport& report) {
  const QuantizeOptions& o = report.options;
  Json j;
  j["source"] = o.source;
  j["target"] = o.target;
  j["method"] = name_of(o.method);
  j["recipe"] = report.search ? report.search->recipe.base : o.recipe.base;
  if (!o.save_recipe.empty()) j["recipe_file"] = o.save_recipe;
  j["text"] = o.text;
  j["tokens"] = report.tokens;
  j["context"] = o.context;
  j["imatrix"] = o.imatrix;
  if (o.method == Method::kAutoRound || o.method == Method::kScales) {
    constexpr const char* kStarts[] = {"feedback", "round", "auto_round"};
    j["start"] = kStarts[static_cast<size_t>(o.start)];
    if (o.steps > 0) j["steps"] = o.steps;
    if (o.learning_rate > 0) j["learning_rate"] = o.learning_rate;
  }
  // AutoRound as a start begins with feedback too.
  const bool feeds =
      o.method == Method::kFeedback || (o.method != Method::kRound && o.start != Start::kRound);
  if (feeds) {
    j["damping"] = o.damping;
    j["inputs"] = o.original_inputs ? "original" : "rounded";
  }
  if (!o.recipe_only) j["bytes"] = report.written.target_bytes;
  j["seconds"] = report.seconds;
  j["matrices"] = Json::array();
  for (const MatrixReport& m : report.matrices) {
    Json row = {{"name", m.name},     {"type", carat::name_of(m.dtype)},
                {"shape", m.shape},   {"bytes", m.bytes},
                {"method", m.method}, {"error", m.error}};
    if (m.weighted_error >= 0) row["weighted_error"] = m.weighted_error;
    if (m.output_error >= 0) row["output_error"] = m.output_error;
    j["matrices"].push_back(std::move(row));
  }
  if (report.search) j["search"] = to_json(*report.search);
  for (const Refinement& r : report.refined) {
    j["refined"].push_back({{"what", r.what}, {"before", r.before}, {"after", r.after}});
  }
  return j;
}

}  // namespace carat::quantize
