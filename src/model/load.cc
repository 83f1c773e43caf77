#include "model/load.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxId = int64_t{1} << 22;

std::string config_path(const io::Checkpoint& checkpoint) {
  return checkpoint.kind == io::CheckpointKind::kHfDirectory ? checkpoint.path + "/config.json"
                                                             : "config.json";
}

void append_ids(const Json& j, const char* key, std::vector<int32_t>* out) {
  const Json* ids = find(j, key);
  if (ids == nullptr) return;
  const Json list = ids->is_array() ? *ids : Json::array({*ids});
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxId) {
      throw Error({"not a token id", "", key, "an integer", to_json_text(id), ""});
    }
    out->push_back(static_cast<int32_t>(id.get<int64_t>()));
  }
}

void read_generation_config(const Json& j, GenerationDefaults& g) {
  g.temperature = static_cast<float>(get_number(j, "temperature", 0, 100, g.temperature));
  g.top_k = get_int(j, "top_k", 0, kMaxId, g.top_k);
  g.top_p = static_cast<float>(get_number(j, "top_p", 0, 1, g.top_p));
  if (!get_bool(j, "do_sample", true)) g.temperature = 0;
  append_ids(j, "eos_token_id", &g.stop_ids);
  append_ids(j, "suppress_tokens", &g.suppress_ids);
}

void read_sampling_keys(const io::GgufMetadata& m, GenerationDefaults& g) {
  g.temperature = static_cast<float>(m.get_number("general.sampling.temp", 0, 100, g.temperature));
  g.top_k = m.get_int("general.sampling.top_k", 0, kMaxId, g.top_k);
  g.top_p = static_cast<float>(m.get_number("general.sampling.top_p", 0, 1, g.top_p));
  const int64_t eos = m.get_int("tokenizer.ggml.eos_token_id", 0, kMaxId, -1);
  if (eos >= 0) g.stop_ids.push_back(static_cast<int32_t>(eos));
}

void sort_unique_in_range(std::vector<int32_t>& ids, int64_t vocab_size, const char* what) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (!ids.empty() && ids.back() >= vocab_size) {
    throw Error({"a token id is not in the vocabulary", "", what,
                 fmt::format("less than {}", vocab_size), fmt::format("{}", ids.back()), ""});
  }
}

GenerationDefaults generation_of(const io::Checkpoint& checkpoint, const Config& config,
                                 const text::Tokenizer* tokenizer) {
  GenerationDefaults g;
  if (checkpoint.gguf != nullptr) {
    read_sampling_keys(checkpoint.gguf->metadata(), g);
  } else if (checkpoint.generation_config.is_object()) {
    read_generation_config(checkpoint.generation_config, g);
  }
  if (tokenizer != nullptr) {
    // Older generation configs lack <|tool_response>, which ends a turn that waits for a tool.
    const text::Vocab& v = tokenizer->vocab();
    g.stop_ids.insert(g.stop_ids.end(), v.stop_ids.begin(), v.stop_ids.end());
    g.suppress_ids.insert(g.suppress_ids.end(), v.suppress_ids.begin(), v.suppress_ids.end());
  }
  if (g.stop_ids.empty() && checkpoint.config.is_object()) {
    append_ids(checkpoint.config, "eos_token_id", &g.stop_ids);
  }
  sort_unique_in_range(g.stop_ids, config.vocab_size, "stop tokens");
  sort_unique_in_range(g.suppress_ids, config.vocab_size, "suppressed tokens");
  return g;
}

void check_vocab(const text::Tokenizer& tokenizer, const Config& config) {
  if (tokenizer.vocab().size() <= config.vocab_size) return;
  throw Error({"the tokenizer has more entries than the model's embedding has rows", "",
               "tokenizer", fmt::format("at most {}", config.vocab_size),
               fmt::format("{}", tokenizer.vocab().size()),
               "the tokenizer belongs to another model"});
}

StoredTensors find_tensors(const io::Checkpoint& checkpoint, const Config& config) try {
  return StoredTensors(checkpoint, config);
} catch (const Error& e) {
  throw e.with_file(config_path(checkpoint));  // other errors name the file of a tensor
}

}  // namespace

Config config_of(const io::Checkpoint& checkpoint) {
  if (checkpoint.gguf != nullptr) {
    try {
      return config_from_gguf(checkpoint.gguf->metadata(), *checkpoint.tensors);
    } catch (const Error& e) {
      throw e.with_file(checkpoint.path);
    }
  }
  if (!checkpoint.config.is_object()) {
    throw Error({"there is no config.json beside the tensors", checkpoint.path, "", "", "",
                 "open the folder that the file was downloaded with"});
  }
  try {
    (void)coding_of(checkpoint.config);
    return config_from_hf(checkpoint.config);
  } catch (const Error& e) {
    throw e.with_file(config_path(checkpoint));
  }
}

std::shared_ptr<const text::Tokenizer> tokenizer_of(const io::Checkpoint& checkpoint) {
  if (checkpoint.gguf != nullptr) {
    const io::GgufMetadata& m = checkpoint.gguf->metadata();
    if (!m.has("tokenizer.ggml.tokens")) return nullptr;
    try {
      return std::make_shared<text::Tokenizer>(vocab_from_gguf(m));
    } catch (const Error& e) {
      throw e.with_file(checkpoint.path);
    }
  }
  if (checkpoint.tokenizer_path.empty()) return nullptr;
  return std::make_shared<text::Tokenizer>(text::read_tokenizer_json(checkpoint.tokenizer_path));
}

namespace {

// Types that can be read and converted, but not multiplied by.
void check_computable(const Weights& weights, Naming naming) {
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const kernels::Weight& w = weights.all[i];
    if (info(w.dtype).computable || !w.scales.empty()) continue;
    throw Error({"a tensor has a type that carat converts but does not compute with",
                 w.file ? w.file->path() : "", "tensor " + name_of(weights.refs[i], naming),
                 computable_names(), name_of(w.dtype),
                 "carat convert MODEL.gguf OUT.gguf --to gguf-bf16 keeps the values of this type"});
  }
}

// What stays in the file's order but has no mapping that kernels can read: joined experts, and
// floats at odd places of a safetensors file.
void copy_unmapped(Weights& weights) {
  struct Copies {
    std::shared_ptr<const void> before;
    std::vector<std::unique_ptr<std::byte[]>> blocks;
  };
  auto copies = std::make_shared<Copies>();
  for (size_t i = 0; i < weights.all.size(); ++i) {
    kernels::Weight& w = weights.all[i];
    if (w.data != nullptr || w.file == nullptr || !w.scales.empty()) continue;
    if (is_looked_up_only(weights.config, weights.refs[i].kind)) continue;
    const auto bytes = static_cast<size_t>(w.count * w.matrix_size());
    copies->blocks.push_back(std::make_unique_for_overwrite<std::byte[]>(bytes));
    w.file->read(w.file_offset, {copies->blocks.back().get(), bytes});
    w.data = copies->blocks.back().get();
  }
  if (copies->blocks.empty()) return;
  copies->before = std::move(weights.storage);
  weights.storage = std::move(copies);
}

}  // namespace

Model load_model(const std::string& path, const LoadOptions& options) {
  return load_model(io::open_checkpoint(path), options);
}

Model load_model(io::Checkpoint checkpoint, const LoadOptions& options) {
  Model model;
  model.path = checkpoint.path;
  model.kind = checkpoint.kind;
  const Config config = config_of(checkpoint);
  const StoredTensors stored = find_tensors(checkpoint, config);
  model.tokenizer = tokenizer_of(checkpoint);
  try {
    if (model.tokenizer) check_vocab(*model.tokenizer, config);
    model.generation = generation_of(checkpoint, config, model.tokenizer.get());
  } catch (const Error& e) {
    throw e.with_file(checkpoint.path);
  }
  if (checkpoint.gguf != nullptr) checkpoint.gguf->release_metadata();
  model.source = std::move(checkpoint.tensors);
  model.weights = bind_weights(config, stored, model.source, &model.notes);
  if (options.pack) {
    check_computable(model.weights, stored.naming());
    pack_weights(model.weights, options.packing, &model.notes);
    copy_unmapped(model.weights);
  }
  if (!model.tokenizer) model.notes.push_back("the checkpoint has no tokenizer");
  return model;
}

}  // namespace carat::model
