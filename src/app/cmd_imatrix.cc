#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/model_path.h"
#include "app/outputs.h"
#include "app/progress.h"
#include "app/table.h"
#include "app/version.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "calibrate/importance.h"
#include "calibrate/read_text.h"
#include "io/imatrix_file.h"
#include "kernels/cpu/dispatch.h"

namespace carat::app {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;

// What an entry says, for people.
struct EntryFigures {
  int64_t matrices = 0, columns = 0;
  double inputs = 0;   // that the matrices saw together
  int64_t unseen = 0;  // matrices that saw none
  double mean = 0;     // of x^2, over columns of matrices that saw any
  double top = 0;      // share of the columns' sum that the largest hundredth of them holds
};

EntryFigures figures_of(const io::ImatrixEntry& e) {
  EntryFigures f;
  f.matrices = static_cast<int64_t>(e.counts.size());
  f.columns = static_cast<int64_t>(e.sums.size()) / f.matrices;
  double sum = 0;
  for (size_t i = 0; i < e.sums.size(); ++i) sum += e.sums[i];
  for (const float n : e.counts) {
    f.inputs += n;
    f.unseen += n == 0;
  }
  if (f.inputs > 0) f.mean = sum / f.inputs / static_cast<double>(f.columns);
  std::vector<float> sorted = e.sums;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const size_t most = (sorted.size() + 99) / 100;
  double top = 0;
  for (size_t i = 0; i < most; ++i) top += sorted[i];
  if (sum > 0) f.top = top / sum;
  return f;
}

// "blk.N.ffn_down" of "blk.3.ffn_down.weight".
std::string kind_of(const std::string& name) {
  std::string kind = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
  if (!kind.starts_with("blk.")) return kind;
  const size_t dot = kind.find('.', 4);
  return dot == std::string::npos ? kind : "blk.N" + kind.substr(dot);
}

class ImatrixCommand final : public Command {
 public:
  std::string name() const override { return "imatrix"; }

  HelpText help() const override {
    return {
        .summary = "finds which columns of matrices matter, for quantizing",
        .description =
            "Reads a text with a model and sums, for every matrix, the squares of what its columns "
            "are multiplied with; of a mixture of experts for each expert. A quantizer that weighs "
            "its errors by these sums spends its precision where the model looks.\n"
            "Give it the model in full precision and text like that which the result will see, "
            "such as dialogues in the model's own template; not the text that it will be judged "
            "by. "
            "The text is cut into chunks that begin with <bos>.\n"
            "The file is what llama.cpp's llama-imatrix writes: GGUF, or the older kind if its "
            "name "
            "ends in .dat. `carat convert --imatrix` and llama-quantize read both.",
        .examples = {{"carat imatrix model/ --text calibration.txt -o model-imatrix.gguf",
                      "the whole text, 512 tokens at a time"},
                     {"carat imatrix model.gguf --text c.txt -o m.dat --max-tokens 100000",
                      "the first 100,000 tokens, in the older kind of file"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "MODEL",
             .target = &model_,
             .required = true,
             .help = "GGUF file or model directory"},
            {.names = "--text",
             .value = "FILE",
             .target = &text_,
             .required = true,
             .help = "plain UTF-8 text"},
            {.names = "-o,--out",
             .value = "FILE",
             .target = &out_,
             .required = true,
             .help = "file to write: GGUF, or the older kind if it ends in .dat"},
            {.names = "--context",
             .value = "N",
             .target = &text_options_.context,
             .help = "tokens a chunk, <bos> included",
             .lowest = 2,
             .highest = 1 << 20},
            {.names = "--max-tokens",
             .value = "N",
             .target = &text_options_.max_tokens,
             .help = "ends after the chunk that reaches so many; 0: all of the text",
             .lowest = 0},
            {.names = "--force", .target = &force_, .help = "replaces an existing file"},
            threads_option(&threads_),
            json_option(&json_)};
  }

  int run(const Environment& environment) override {
    check_out();
    const auto begin = std::chrono::steady_clock::now();
    ThreadPool pool(resolve_threads(threads_));
    const model::Model model = open_model(model_, pool);
    const auto chunks = read_chunks_of(model);
    calibrate::ReadCall call;
    call.weights = &model.weights;
    call.chunks = chunks;
    call.stop = environment.stop;
    Progress progress("tokens");
    call.progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
    calibrate::SquareSums sums(model.weights, pool);
    try {
      calibrate::read_chunks(call, sums, pool, kernels::choose_kernels(environment.isa));
    } catch (const Error& e) {
      throw e.with_file(model.path);
    }
    progress.finish();

    io::Imatrix m;
    m.entries = sums.entries();
    m.datasets = {text_};
    m.chunk_count = static_cast<int64_t>(chunks.size());
    m.chunk_size = text_options_.context;
    io::write_imatrix(out_, m);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    int64_t tokens = 0;
    for (const auto& chunk : chunks) tokens += static_cast<int64_t>(chunk.size());
    if (json_) {
      print_json(m, tokens, seconds);
    } else {
      print_table(m, tokens, seconds);
    }
    return kDone;
  }

 private:
  void check_out() const {
    std::vector<std::string> inputs = {text_};
    if (model_) inputs.push_back(*model_);
    check_outputs({{.option = "--out", .path = out_, .force = force_}}, inputs);
  }

  std::vector<std::vector<int32_t>> read_chunks_of(const model::Model& model) const {
    const text::Tokenizer& tokenizer = require_tokenizer(model);
    const int64_t known = tokenizer.vocab().size();
    if (known > model.config().vocab_size) {
      throw Error({"the tokenizer has more tokens than the model",
                   model.path,
                   {},
                   std::to_string(model.config().vocab_size),
                   std::to_string(known),
                   {}});
    }
    const int32_t bos = tokenizer.vocab().special.bos;
    if (bos == text::kNoToken) {
      throw Error({"the tokenizer has no <bos>", model.path, {}, {}, {}, {}});
    }
    const auto tokens = tokenizer.encode(read_text_file(text_, kMaxTextBytes));
    const auto chunks = calibrate::calibration_chunks(tokens, bos, text_options_);
    if (chunks.empty()) throw Error({"the text is empty", text_, {}, {}, {}, {}});
    return chunks;
  }

  void print_json(const io::Imatrix& m, int64_t tokens, double seconds) const {
    Json j;
    j["model"] = *model_;
    j["text"] = text_;
    j["out"] = out_;
    j["bytes"] = static_cast<int64_t>(fs::file_size(out_));
    j["tokens"] = tokens;
    j["chunks"] = m.chunk_count;
    j["context"] = m.chunk_size;
    j["seconds"] = seconds;
    j["version"] = version();
    j["commit"] = commit();
    j["entries"] = Json::array();
    for (const io::ImatrixEntry& e : m.entries) {
      const EntryFigures f = figures_of(e);
      j["entries"].push_back({{"name", e.name},
                              {"matrices", f.matrices},
                              {"columns", f.columns},
                              {"inputs", f.inputs},
                              {"matrices_unseen", f.unseen},
                              {"mean_square", f.mean},
                              {"share_of_top_percent", f.top}});
    }
    fmt::print("{}\n", to_json_text(j, 2));
  }

  void print_table(const io::Imatrix& m, int64_t tokens, double seconds) const {
    struct Group {
      int64_t entries = 0, matrices = 0;
      double mean = 0, top = 0;
    };
    std::map<std::string, Group> groups;
    int64_t unseen = 0;
    for (const io::ImatrixEntry& e : m.entries) {
      const EntryFigures f = figures_of(e);
      Group& g = groups[kind_of(e.name)];
      ++g.entries;
      g.matrices += f.matrices;
      g.mean += f.mean;
      g.top += f.top;
      unseen += f.unseen;
    }
    Table table({"input of", "tensors", "matrices", "mean square", "in 1 % of the columns"});
    for (const auto& [kind, g] : groups) {
      const auto n = static_cast<double>(g.entries);
      table.add({kind, std::to_string(g.entries), std::to_string(g.matrices),
                 fmt::format("{:.3g}", g.mean / n), fmt::format("{:.1f} %", 100 * g.top / n)});
    }
    fmt::print("{}\n", table.text());
    if (unseen > 0) {
      fmt::print(stderr, "note: {} experts saw no token: their columns will all weigh the same\n",
                 unseen);
    }
    fmt::print("wrote {} ({}) from {} tokens in {} chunks, in {}\n", out_,
               format_bytes(static_cast<int64_t>(fs::file_size(out_))), tokens, m.chunk_count,
               format_duration(seconds));
  }

  ModelName model_;
  std::string text_, out_;
  calibrate::TextOptions text_options_;
  int64_t threads_ = 0;
  bool force_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_imatrix_command() { return std::make_unique<ImatrixCommand>(); }

}  // namespace carat::app
