#include "quantize/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "calibrate/importance.h"
#include "calibrate/read_text.h"
#include "kernels/cpu/dispatch.h"
#include "model/load.h"
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
        checkpoint_(io::open_checkpoint(options.source)),
        rows_(checkpoint_, model::config_of(checkpoint_)) {
    model::LoadOptions load;
    load.pack = true;
    load.packing.only_codes = true;
    load.packing.pool = &pool_;
    model_ = model::load_model(std::move(checkpoint_), load);
  }

  QuantizeReport run() {
    const auto begin = std::chrono::steady_clock::now();
    QuantizeReport report;
    report.options = options_;
    const auto chunks = chunks_of(model_, options_);
    for (const auto& chunk : chunks) report.tokens += static_cast<int64_t>(chunk.size());
    EncodedStore store(options_.target);
    Job job{model_,
            rows_,
            matrices_of(model_.config(), options_.recipe),
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
    } else if (!chunks.empty()) {
      imatrix.entries = importance(chunks);
      job.imatrix = &imatrix;
    }
    std::vector<MatrixResult> results = encode(job, &report.refined);
    for (MatrixResult& r : results) r.weighted_error = weighted_error(job, r.name);
    report.written = write(store);
    fill(job.matrices, results, &report);
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
  }

 private:
  std::vector<io::ImatrixEntry> importance(std::span<const std::vector<int32_t>> chunks) {
    calibrate::ReadCall call;
    call.weights = &model_.weights;
    call.chunks = chunks;
    call.stop = options_.stop;
    call.progress = [&](int64_t done, int64_t total) {
      if (options_.progress) options_.progress(done, total, "reading the text");
    };
    calibrate::SquareSums sums(model_.weights, pool_);
    try {
      calibrate::read_chunks(call, sums, pool_, table_);
    } catch (const Error& e) {
      throw e.with_file(options_.source);
    }
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

  convert::ConvertReport write(const EncodedStore& store) const {
    convert::ConvertOptions c;
    c.source = options_.source;
    c.target = options_.target;
    c.format = convert::Format::kGguf;
    c.recipe = options_.recipe;
    c.encoded = &store;
    c.overwrite = options_.overwrite;
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
  io::Checkpoint checkpoint_;  // moved into the model
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
  j["recipe"] = o.recipe.base;
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
  if (o.method == Method::kFeedback) {
    j["damping"] = o.damping;
    j["inputs"] = o.original_inputs ? "original" : "rounded";
  }
  j["bytes"] = report.written.target_bytes;
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
  for (const Refinement& r : report.refined) {
    j["refined"].push_back({{"what", r.what}, {"before", r.before}, {"after", r.after}});
  }
  return j;
}

}  // namespace carat::quantize
