#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <initializer_list>
#include <map>
#include <optional>
#include <utility>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/memory.h"
#include "app/outputs.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/version.h"
#include "base/error.h"
#include "base/json.h"
#include "convert/recipe.h"
#include "quantize/choices.h"
#include "quantize/quantize.h"

namespace carat::app {
namespace {

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const convert::GgufRecipe& r : convert::gguf_recipes()) names.emplace_back(r.name);
  return names;
}

class QuantizeCommand final : public Command {
 public:
  std::string name() const override { return "quantize"; }

  HelpText help() const override {
    return {
        .summary = "rounds a model with the help of a text",
        .description =
            "Writes a quantized GGUF file whose codes were chosen by what the model does with a "
            "text, such as dialogues in its own template; not the text that it will be judged by.\n"
            "round weighs each error by how large the column's inputs are: an importance matrix, "
            "from --imatrix or made of the text. feedback rounds column after column and "
            "lets the later ones take up the errors of the earlier, as far as their inputs are "
            "correlated; layer by layer, each with the inputs that the rounded ones before it "
            "give. auto_round betters such codes, and scales with them, by signed gradient descent "
            "on what each layer gives. scales leaves codes as they are and trains the scales of "
            "blocks on what the whole model expects; it needs the model in memory as floats.\n"
            "For checkpoints of quantization-aware training there is nothing to choose: carat "
            "convert keeps them as they are. docs/quantize.md compares the methods.",
        .examples = {{"carat quantize model/ q4.gguf --method feedback --type q4_0 --text c.txt",
                      "every matrix Q4_0"},
                     {"carat quantize model/ small.gguf --recipe mine.json --imatrix m.gguf",
                      "types by a recipe, errors weighted by an importance matrix"},
                     {"carat quantize model/ best.gguf --size 2.6GB --text c.txt",
                      "the best types for 2.6 GB, found by measuring"},
                     {"carat quantize model/ b.gguf --recipe best.gguf.recipe.json --text c.txt",
                      "the same types once more"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "SRC",
         .target = &options_.source,
         .required = true,
         .help = "GGUF or safetensors file, or model directory"},
        {.names = "DST", .target = &options_.target, .required = true, .help = "file to write"},
        {.names = "--method",
         .value = "NAME",
         .target = &method_,
         .help = "how codes are chosen",
         .choices = quantize::method_names()},
        {.names = "--type",
         .value = "TYPE",
         .target = &type_,
         .help = "type of every matrix; the tables are Q6_K, but for q4_0"},
        {.names = "--recipe",
         .value = "NAME",
         .target = &recipe_,
         .help = fmt::format("types as of carat convert: {}; or a .json file",
                             fmt::join(recipe_names(), ", "))},
        {.names = "--size",
         .value = "BYTES",
         .target = &size_,
         .help = "chooses the types of single tensors for a file of at most so many bytes (2.6GB, "
                 "900MB, 1.8GiB)"},
        {.names = "--kld",
         .value = "X",
         .target = &kld_,
         .help = "chooses them for the smallest file with at most this mean KLD"},
        {.names = "--types",
         .value = "LIST",
         .target = &types_,
         .help = "of --size and --kld: types that may be used, such as q4_k,q6_k; without it, all "
                 "that carat writes"},
        {.names = "--save-recipe",
         .value = "FILE",
         .target = &options_.save_recipe,
         .help = "of --size and --kld: file for the types that were chosen",
         .default_text = "DST.recipe.json"},
        {.names = "--recipe-only",
         .target = &options_.recipe_only,
         .help = "of --size and --kld: writes that file and not DST"},
        {.names = "--state",
         .value = "FILE",
         .target = &search_.state,
         .help = "of --size and --kld: keeps what was measured, for a search that was interrupted "
                 "and for other sizes"},
        {.names = "--search-tokens",
         .value = "N",
         .target = &search_tokens_,
         .help = "of --size and --kld: tokens of the text that each decision is measured on",
         .lowest = 1,
         .default_text = std::to_string(search_.search_tokens)},
        {.names = "--check-tokens",
         .value = "N",
         .target = &check_tokens_,
         .help = "of --size and --kld: other tokens of it, on which the result is measured; at "
                 "most two fifths of the chunks, or two",
         .lowest = 1,
         .default_text = std::to_string(search_.check_tokens)},
        {.names = "--rounds",
         .value = "N",
         .target = &rounds_,
         .help = "of --size and --kld: how often every matrix is measured in the midst of the "
                 "others",
         .lowest = 0,
         .highest = 100,
         .default_text = std::to_string(search_.rounds)},
        {.names = "--text",
         .value = "FILE",
         .target = &options_.text,
         .help = "calibration text, plain UTF-8"},
        {.names = "--context",
         .value = "N",
         .target = &context_,
         .help = "tokens a chunk of the text, <bos> included",
         .lowest = 2,
         .highest = 1 << 20,
         .default_text = std::to_string(options_.context)},
        {.names = "--max-tokens",
         .value = "N",
         .target = &max_tokens_,
         .help = "ends the text after the chunk that reaches so many; 0: all of it",
         .lowest = 0,
         .default_text = std::to_string(options_.max_tokens)},
        {.names = "--imatrix",
         .value = "FILE",
         .target = &options_.imatrix,
         .help = "importance matrix instead of one made of the text"},
        {.names = "--damping",
         .value = "X",
         .target = &damping_,
         .help = "of feedback: share of the mean that is added to the sums' diagonal",
         .lowest = 1e-6,
         .highest = 1e6,
         .default_text = fmt::format("{}", options_.damping)},
        {.names = "--original-inputs",
         .target = &options_.original_inputs,
         .help = "of feedback: layers see what the original gives them, not what the rounded "
                 "ones do"},
        {.names = "--start",
         .value = "NAME",
         .target = &start_,
         .help = "of auto_round and scales: codes that they begin with; of scales only, auto_round",
         .choices = {"round", "feedback", "auto_round"},
         .default_text = "feedback"},
        {.names = "--steps",
         .value = "N",
         .target = &steps_,
         .help = "of auto_round (for each layer) and scales; 0: the method's own number",
         .lowest = 0,
         .default_text = "0"},
        {.names = "--learning-rate",
         .value = "X",
         .target = &learning_rate_,
         .help = "of their first step; 0: the method's own",
         .lowest = 0,
         .default_text = "0"},
        {.names = "--memory",
         .value = "MB",
         .target = &memory_,
         .help = "what is kept of the text may take",
         .lowest = 1,
         .highest = 1e8},
        {.names = "--force", .target = &options_.overwrite, .help = "replaces an existing file"},
        threads_option(&threads_),
        json_option(&json_)};
  }

  int run(const Environment& environment) override {
    options_.method = quantize::method_from_name(method_);
    choose_types();
    choose_method();
    check_files();
    options_.memory = memory_ * 1'000'000;
    options_.threads = resolve_threads(threads_);
    options_.isa = environment.isa;
    options_.stop = environment.stop;
    std::optional<Progress> progress;
    progress.emplace("k");
    options_.progress = [&](int64_t done, int64_t total, const std::string& what) {
      progress->update(done / 1000, total / 1000, what);
    };
    options_.note = [&](const std::string& text) {
      progress->finish();
      fmt::print(stderr, "note: {}\n", text);
    };
    const quantize::QuantizeReport report = quantize::quantize(options_);
    progress->finish();
    if (json_) {
      Json j = quantize::to_json(report);
      j["version"] = version();
      j["commit"] = commit();
      fmt::print("{}\n", to_json_text(j, 2));
    } else {
      print(report);
    }
    // The file is there, and the report said what is missing in it.
    if (report.search && !options_.recipe_only && !report.search->written) throw_if_stopped();
    return kDone;
  }

 private:
  // Nothing that is read is written over, and no output is another; what may be replaced,
  // quantize::quantize sees.
  void check_files() const {
    std::vector<Output> outputs;
    if (!options_.recipe_only) {
      outputs.push_back({.option = "DST", .path = options_.target, .force = true});
    }
    for (const auto& [option, path] :
         {std::pair("--save-recipe", options_.save_recipe), std::pair("--state", search_.state)}) {
      if (!path.empty()) outputs.push_back({.option = option, .path = path, .force = true});
    }
    check_outputs(outputs, {options_.source, options_.text, options_.imatrix, recipe_});
  }

  void throw_if_stopped() const {
    if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
  }

  bool searches() const { return size_ || kld_; }

  // Whether an option was given, and its name.
  using Given = std::pair<bool, const char*>;

  // Options that would be ignored.
  static void refuse_given(std::initializer_list<Given> options, const std::string& why) {
    for (const auto& [given, name] : options) {
      if (given) throw UsageError(fmt::format("{} {}", name, why));
    }
  }

  void choose_method() {
    using quantize::Method;
    using quantize::Start;
    const Method method = options_.method;
    const bool refines = method == Method::kAutoRound || method == Method::kScales;
    if (method != Method::kRound && options_.text.empty()) {
      throw UsageError(fmt::format("--method {} needs --text", method_));
    }
    if (options_.recipe_only) {
      refuse_given({{start_.has_value(), "--start"},
                    {steps_.has_value(), "--steps"},
                    {learning_rate_.has_value(), "--learning-rate"},
                    {damping_.has_value(), "--damping"},
                    {options_.original_inputs, "--original-inputs"}},
                   "is of codes, and --recipe-only makes none");
    }
    if (!refines) {
      refuse_given({{start_.has_value(), "--start"},
                    {steps_.has_value(), "--steps"},
                    {learning_rate_.has_value(), "--learning-rate"}},
                   "needs --method auto_round or scales");
    }
    const std::string start = start_.value_or("feedback");
    options_.start = start == "round"        ? Start::kRound
                     : start == "auto_round" ? Start::kAutoRound
                                             : Start::kFeedback;
    if (method == Method::kAutoRound && options_.start == Start::kAutoRound) {
      throw UsageError("--method auto_round cannot start with itself");
    }
    if (method == Method::kRound || (refines && options_.start == Start::kRound)) {
      refuse_given(
          {{damping_.has_value(), "--damping"}, {options_.original_inputs, "--original-inputs"}},
          "needs codes of feedback (--method, --start)");
    }
    if (options_.text.empty()) {
      refuse_given({{context_.has_value(), "--context"}, {max_tokens_.has_value(), "--max-tokens"}},
                   "needs --text");
    } else if (method == Method::kRound && !searches() && !options_.imatrix.empty()) {
      throw UsageError("--method round takes --imatrix or --text, not both: they say the same");
    }
    options_.steps = steps_.value_or(options_.steps);
    options_.learning_rate = learning_rate_.value_or(options_.learning_rate);
    options_.damping = damping_.value_or(options_.damping);
    options_.context = context_.value_or(options_.context);
    options_.max_tokens = max_tokens_.value_or(options_.max_tokens);
  }

  // One of the options that say the types is given.
  void choose_types() {
    const int given = !type_.empty() + !recipe_.empty() + size_.has_value() + kld_.has_value();
    if (given != 1) {
      throw UsageError("one of --type, --recipe, --size and --kld is needed, and only one");
    }
    if (searches()) return choose_search();
    refuse_given({{!types_.empty(), "--types"},
                  {!options_.save_recipe.empty(), "--save-recipe"},
                  {options_.recipe_only, "--recipe-only"},
                  {!search_.state.empty(), "--state"},
                  {search_tokens_.has_value(), "--search-tokens"},
                  {check_tokens_.has_value(), "--check-tokens"},
                  {rounds_.has_value(), "--rounds"}},
                 "needs --size or --kld");
    if (recipe_.ends_with(".json")) {
      options_.recipe = convert::read_recipe(recipe_);
      return;
    }
    const std::string base = type_.empty() ? recipe_ : type_ == "q4_0" ? "q4_0_all" : type_;
    const std::vector<std::string> names = recipe_names();
    if (std::find(names.begin(), names.end(), base) == names.end()) {
      throw UsageError(fmt::format("{} must be one of {}{}; not '{}'",
                                   type_.empty() ? "--recipe" : "--type", fmt::join(names, ", "),
                                   type_.empty() ? ", or a .json file" : "", base));
    }
    options_.recipe.base = base;
  }

  void choose_search() {
    if (options_.text.empty()) throw UsageError("--size and --kld need --text");
    if (size_) search_.size = parse_bytes(*size_, "--size");
    if (kld_ && !(*kld_ > 0)) throw UsageError("--kld must be more than 0");
    search_.kld = kld_;
    search_.rounds = static_cast<int>(rounds_.value_or(search_.rounds));
    search_.search_tokens = search_tokens_.value_or(search_.search_tokens);
    search_.check_tokens = check_tokens_.value_or(search_.check_tokens);
    const std::vector<DType> writable = quantize::writable_types();
    for (size_t begin = 0; begin < types_.size();) {
      const size_t end = std::min(types_.find(',', begin), types_.size());
      const std::string name = types_.substr(begin, end - begin);
      const std::optional<DType> type = dtype_from_name(name);
      if (!type || std::find(writable.begin(), writable.end(), *type) == writable.end()) {
        throw UsageError(fmt::format("--types lists types of matrices such as {}; not '{}'",
                                     computable_names(), name));
      }
      search_.types.push_back(*type);
      begin = end + 1;
    }
    options_.search = search_;
    if (options_.save_recipe.empty()) options_.save_recipe = options_.target + ".recipe.json";
  }

  static std::string kld_text(const audit::Figure& f) {
    if (!f.interval) return fmt::format("{:.5f}", f.value);
    return fmt::format("{:.5f} ({:.5f}..{:.5f})", f.value, f.interval->low, f.interval->high);
  }

  static void print(const quantize::SearchReport& r) {
    Table steps({"step", "file bytes", "predicted KLD", "measured", ""});
    for (const quantize::SearchStep& s : r.steps) {
      steps.add({s.what, std::to_string(s.bytes), fmt::format("{:.5f}", s.predicted),
                 fmt::format("{:.5f}", s.measured), s.taken ? "" : "left"});
    }
    Table front({"file bytes", "predicted KLD", "measured", ""});
    for (const quantize::FrontPoint& p : r.front) {
      front.add({std::to_string(p.bytes), fmt::format("{:.5f}", p.predicted), kld_text(p.measured),
                 p.chosen ? "<- chosen" : ""});
    }
    fmt::print(
        "{}\nthe front, on {} positions of the text on which no types were measured before (95 % "
        "intervals)\n{}\n",
        steps.text(), r.check_positions, front.text());
    for (const std::string& note : r.notes) fmt::print(stderr, "note: {}\n", note);
  }

  static void print(const quantize::QuantizeReport& report) {
    if (report.search) print(*report.search);
    const std::string& recipe = report.options.save_recipe;
    if (!recipe.empty()) fmt::print("wrote {}\n", recipe);
    if (report.options.recipe_only) return;
    struct Group {
      int64_t tensors = 0, bytes = 0;
      double error = 0, weighted = 0, output = 0;
      int64_t with_weighted = 0, with_output = 0;
    };
    std::map<std::pair<std::string, std::string>, Group> groups;
    for (const quantize::MatrixReport& m : report.matrices) {
      Group& g = groups[{carat::name_of(m.dtype), m.method}];
      ++g.tensors;
      g.bytes += m.bytes;
      g.error += m.error;
      if (m.weighted_error >= 0) g.weighted += m.weighted_error, ++g.with_weighted;
      if (m.output_error >= 0) g.output += m.output_error, ++g.with_output;
    }
    const auto percent = [](double sum, int64_t n) {
      return n == 0 ? std::string("-")
                    : fmt::format("{:.2f} %", 100 * sum / static_cast<double>(n));
    };
    Table table({"type", "codes by", "matrices", "size", "error", "weighted", "of outputs"});
    for (const auto& [key, g] : groups) {
      table.add({key.first, key.second, std::to_string(g.tensors), format_bytes(g.bytes),
                 percent(g.error, g.tensors), percent(g.weighted, g.with_weighted),
                 percent(g.output, g.with_output)});
    }
    fmt::print("{}\n", table.text());
    if (report.search && report.search->written) {
      fmt::print("mean KLD of the file, on the same positions: {}\n",
                 kld_text(*report.search->written));
    }
    for (const std::string& note : report.written.notes) fmt::print(stderr, "note: {}\n", note);
    fmt::print("wrote {} ({}) from {} tokens of text, in {}\n", report.options.target,
               format_bytes(report.written.target_bytes), report.tokens,
               format_duration(report.seconds));
  }

  quantize::QuantizeOptions options_;
  std::string method_ = "feedback", type_, recipe_;
  int64_t threads_ = 0, memory_ = 8000;
  quantize::SearchOptions search_;
  std::optional<std::string> size_;
  std::optional<double> kld_;
  std::string types_;
  // Those that only some methods take stay empty unless they are given.
  std::optional<int64_t> search_tokens_, check_tokens_, rounds_, context_, max_tokens_, steps_;
  std::optional<double> damping_, learning_rate_;
  std::optional<std::string> start_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_quantize_command() { return std::make_unique<QuantizeCommand>(); }

}  // namespace carat::app
