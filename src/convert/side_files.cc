#include "convert/side_files.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/file.h"

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

// The last part of the path as a name for people.
std::string name_from_path(const std::string& path) {
  fs::path p = fs::path(path).lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  const std::string stem =
      p.extension() == ".gguf" || p.extension() == ".safetensors" ? p.stem() : p.filename();
  return stem.empty() || stem == "." || stem == ".." ? "model" : stem;
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

std::string generation_config_text(const model::GenerationDefaults& g, const text::Vocab* vocab) {
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

Texts hf_texts(const Json& config, const text::Vocab* vocab, const SideFiles& side) {
  Texts texts;
  texts.emplace_back("config.json", to_json_text(config, 2) + "\n");
  if (!side.generation_config.empty()) {
    texts.emplace_back("generation_config.json", side.generation_config);
  }
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
  return texts;
}

}  // namespace carat::convert
