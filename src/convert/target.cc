#include "convert/target.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "convert/journal.h"
#include "io/safetensors_writer.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxText = int64_t{1} << 29;
constexpr int64_t kMaxTemplate = int64_t{16} << 20;

std::string text_of(const std::string& path, int64_t limit) {
  return path.empty() ? std::string() : read_text_file(path, limit);
}

// tokenizer_config.json holds the template as a text, or as a list of named ones.
std::string template_in_config(const std::string& text) {
  if (text.empty()) return {};
  const Json config = parse_json(text);
  const Json* t = find(config, "chat_template");
  if (t == nullptr) return {};
  if (t->is_string()) return t->get<std::string>();
  if (!t->is_array()) return {};
  for (const Json& named : *t) {
    if (named.is_object() && get_string(named, "name", "") == "default") {
      return get_string(named, "template", "");
    }
  }
  return {};
}

bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

// The files that grow beside the target replace what bears their names, so those count too.
void refuse_source(const ConvertOptions& options, const io::TensorSource& source) {
  const fs::path target(options.target);
  const std::string journal = journal_path(options.target, is_directory(options.format));
  for (const fs::path file : source.paths()) {
    if (is_same_file(file, target) || is_same_file(fs::absolute(file).parent_path(), target)) {
      throw Error({"the target is the source", options.target, {}, {}, {}, "name another target"});
    }
    for (const std::string& beside : {options.target + ".part", journal}) {
      if (!is_same_file(file, beside)) continue;
      throw Error({"a file that the conversion writes on the way is the source",
                   options.target,
                   {},
                   {},
                   beside,
                   "name another target"});
    }
  }
}

// The last part of the path as a name for people.
std::string name_from_path(const std::string& path) {
  fs::path p = fs::path(path).lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  const std::string stem =
      p.extension() == ".gguf" || p.extension() == ".safetensors" ? p.stem() : p.filename();
  return stem.empty() || stem == "." || stem == ".." ? "model" : stem;
}

// What an unfinished conversion to this target takes of the disk: it will be taken over or
// replaced.
int64_t unfinished_bytes(const std::string& target) {
  std::error_code code;
  int64_t bytes = 0;
  const auto add = [&](const fs::path& path) {
    const uintmax_t size = fs::file_size(path, code);
    if (!code) bytes += static_cast<int64_t>(size);
  };
  add(target + ".part");
  for (const auto& entry : fs::directory_iterator(target, code)) {
    if (entry.path().extension() == ".part") add(entry.path());
  }
  return bytes;
}

// A directory of our own making is removed again unless finish() was reached.
class HfTarget final : public Target {
 public:
  HfTarget(const ConvertOptions& options, std::vector<io::TensorSpec> specs,
           const std::vector<std::pair<std::string, std::string>>& texts,
           const io::WriteOptions& write)
      : folder_(options.target) {
    std::error_code code;
    made_ = fs::create_directory(folder_, code);
    if (code) {
      throw Error({"cannot make the directory: " + code.message(), options.target, {}, {}, {}, {}});
    }
    try {
      for (const auto& [name, text] : texts) {
        files_.push_back(std::make_unique<AtomicFile>((folder_ / name).string()));
        files_.back()->write(text);
      }
      writer_ = io::write_safetensors_directory(options.target, std::move(specs),
                                                options.max_shard_bytes, {{"format", "pt"}}, write);
    } catch (...) {
      clean_up();
      throw;
    }
  }
  ~HfTarget() override {
    if (!finished_) clean_up();
  }

  io::TensorWriter& tensors() override { return *writer_; }
  void finish() override {
    writer_->finish();
    for (const auto& file : files_) file->commit();
    finished_ = true;
  }

 private:
  void clean_up() {
    writer_.reset();
    files_.clear();
    std::error_code ignored;
    if (made_) fs::remove(folder_, ignored);  // only if it is empty
  }

  fs::path folder_;
  bool made_ = false, finished_ = false;
  std::vector<std::unique_ptr<AtomicFile>> files_;
  std::unique_ptr<io::TensorWriter> writer_;
};

std::string generation_config(const model::GenerationDefaults& g, const text::Vocab* vocab) {
  Json j;
  if (vocab != nullptr && vocab->special.bos >= 0) j["bos_token_id"] = vocab->special.bos;
  j["do_sample"] = g.temperature > 0;
  if (!g.stop_ids.empty()) j["eos_token_id"] = g.stop_ids;
  if (vocab != nullptr && vocab->special.pad >= 0) j["pad_token_id"] = vocab->special.pad;
  if (!g.suppress_ids.empty()) j["suppress_tokens"] = g.suppress_ids;
  if (g.temperature > 0) {
    // The shortest decimals that give these floats back: 0.95, not 0.949999988079071.
    j["temperature"] = std::stod(fmt::format("{}", g.temperature));
    j["top_k"] = g.top_k;
    j["top_p"] = std::stod(fmt::format("{}", g.top_p));
  }
  return to_json_text(j, 2) + "\n";
}

// Files beside a published checkpoint that conversion has nothing to say of.
constexpr const char* kOtherFiles[] = {"LICENSE",
                                       "LICENSE.txt",
                                       "LICENSE.md",
                                       "NOTICE",
                                       "NOTICE.txt",
                                       "README.md",
                                       "tokenizer.model",
                                       "added_tokens.json",
                                       "special_tokens_map.json",
                                       "processor_config.json",
                                       "preprocessor_config.json",
                                       "video_preprocessor_config.json",
                                       "feature_extractor_config.json"};

void read_other_files(const fs::path& folder, SideFiles& side) {
  std::error_code ignored;
  for (const char* name : kOtherFiles) {
    const fs::path path = folder / name;
    if (!fs::is_regular_file(path, ignored)) continue;
    side.others.emplace_back(name, text_of(path.string(), kMaxTemplate));
  }
}

}  // namespace

SideFiles read_side_files(const io::Checkpoint& checkpoint) {
  SideFiles side;
  side.name = name_from_path(checkpoint.path);
  if (checkpoint.gguf != nullptr) {
    const io::GgufMetadata& m = checkpoint.gguf->metadata();
    side.chat_template = m.get_string("tokenizer.chat_template", "");
    side.name = m.get_string("general.name", side.name);
    return side;
  }
  const fs::path source(checkpoint.path);
  read_other_files(
      checkpoint.kind == io::CheckpointKind::kHfDirectory ? source : source.parent_path(), side);
  side.tokenizer_path = checkpoint.tokenizer_path;
  side.tokenizer_config = text_of(checkpoint.tokenizer_config_path, kMaxTemplate);
  side.chat_template = text_of(checkpoint.chat_template_path, kMaxTemplate);
  if (side.chat_template.empty()) side.chat_template = template_in_config(side.tokenizer_config);
  if (checkpoint.generation_config.is_object()) {
    side.generation_config = to_json_text(checkpoint.generation_config, 2) + "\n";
  }
  return side;
}

std::unique_ptr<Target> make_hf_target(const ConvertOptions& options, const model::Model& model,
                                       const SideFiles& side, const Json& config,
                                       std::vector<io::TensorSpec> specs,
                                       const io::WriteOptions& write) {
  const text::Vocab* vocab = model.tokenizer ? &model.tokenizer->vocab() : nullptr;
  std::vector<std::pair<std::string, std::string>> texts;
  texts.emplace_back("config.json", to_json_text(config, 2) + "\n");
  texts.emplace_back("generation_config.json", side.generation_config.empty()
                                                   ? generation_config(model.generation, vocab)
                                                   : side.generation_config);
  if (vocab != nullptr) {
    texts.emplace_back("tokenizer.json", side.tokenizer_path.empty()
                                             ? text::to_tokenizer_json(*vocab)
                                             : text_of(side.tokenizer_path, kMaxText));
    texts.emplace_back("tokenizer_config.json", side.tokenizer_config.empty()
                                                    ? text::to_tokenizer_config_json(*vocab)
                                                    : side.tokenizer_config);
  }
  if (!side.chat_template.empty()) texts.emplace_back("chat_template.jinja", side.chat_template);
  texts.insert(texts.end(), side.others.begin(), side.others.end());
  return std::make_unique<HfTarget>(options, std::move(specs), texts, write);
}

void check_target(const ConvertOptions& options, const io::TensorSource& source) {
  const fs::path target(options.target);
  std::error_code ignored;
  fs::path folder = target.lexically_normal();
  if (folder.filename().empty()) folder = folder.parent_path();  // a trailing slash
  folder = folder.parent_path();
  if (!folder.empty() && !fs::is_directory(folder, ignored)) {
    throw Error({"the target's folder does not exist", options.target, {}, {}, {}, "create it"});
  }
  refuse_source(options, source);
  if (!fs::exists(target, ignored)) return;
  const bool is_folder = fs::is_directory(target, ignored);
  if (is_folder != is_directory(options.format)) {
    throw Error({"the target is of the wrong kind",
                 options.target,
                 {},
                 is_folder ? "a file" : "a directory",
                 is_folder ? "a directory" : "a file",
                 is_folder ? "give the GGUF file a name inside it" : ""});
  }
  if (options.overwrite || (is_folder && fs::is_empty(target, ignored))) return;
  if (is_folder && fs::exists(journal_path(options.target, true), ignored)) return;
  throw Error({"the target exists already", options.target, {}, {}, {}, "--force replaces it"});
}

void check_disk_space(const std::string& target, int64_t bytes) {
  std::error_code code;
  fs::path folder = fs::absolute(target, code).parent_path();
  const fs::space_info space = fs::space(folder, code);
  if (code || space.available == static_cast<uintmax_t>(-1)) return;  // the writer will tell
  bytes -= unfinished_bytes(target);
  if (bytes <= 0 || space.available >= static_cast<uintmax_t>(bytes)) return;
  throw Error({"the disk has too little space for the result",
               target,
               {},
               fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9),
               fmt::format("{:.2f} GB free", static_cast<double>(space.available) / 1e9),
               "free some space or choose another disk"});
}

}  // namespace carat::convert
