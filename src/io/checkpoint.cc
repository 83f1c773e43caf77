#include "io/checkpoint.h"

#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_experts.h"
#include "io/gguf_parse.h"
#include "io/safetensors_reader.h"

namespace carat::io {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string if_exists(const fs::path& path) { return is_there(path) ? path.string() : ""; }

Json read_config_if_exists(const fs::path& path) {
  if (!is_there(path)) return nullptr;
  Json j = read_json_file(path.string(), {.max_depth = 64, .max_bytes = kMaxConfigBytes});
  if (!j.is_object()) throw Error({"not a JSON object", path.string(), {}, {}, {}, {}});
  return j;
}

void read_side_files(const fs::path& folder, Checkpoint& checkpoint) {
  checkpoint.config = read_config_if_exists(folder / "config.json");
  checkpoint.generation_config = read_config_if_exists(folder / "generation_config.json");
  checkpoint.tokenizer_path = if_exists(folder / "tokenizer.json");
  checkpoint.tokenizer_config_path = if_exists(folder / "tokenizer_config.json");
  checkpoint.chat_template_path = if_exists(folder / "chat_template.jinja");
}

// A .gguf file in the folder, for a hint.
std::string some_gguf_in(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".gguf") return entry.path().string();
  }
  return {};
}

// A file that an unfinished conversion left in the folder: a part of a file, or its journal.
std::string unfinished_file_in(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".part") || name.ends_with(".part.journal")) return name;
  }
  return {};
}

// Throws Error if the folder is what a conversion left that ended before its time.
void refuse_unfinished(const fs::path& folder, const char* expected) {
  const std::string file = unfinished_file_in(folder);
  if (file.empty()) return;
  throw Error({"the directory holds an interrupted conversion, not a model",
               folder.string(),
               {},
               expected,
               "only the beginning of it: " + file,
               "run the same carat convert again, which goes on from there"});
}

void open_directory(const fs::path& folder, Checkpoint& checkpoint) {
  checkpoint.kind = CheckpointKind::kHfDirectory;
  read_side_files(folder, checkpoint);
  if (checkpoint.config.is_null()) {
    refuse_unfinished(folder, "a file config.json");
    const std::string gguf = some_gguf_in(folder);
    throw Error({"not a model directory",
                 folder.string(),
                 {},
                 "a file config.json",
                 "none",
                 gguf.empty() ? "" : "name the file itself: " + gguf});
  }
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  if (is_there(single)) {
    checkpoint.tensors = open_safetensors(single.string());
  } else if (is_there(index)) {
    checkpoint.tensors = open_safetensors_index(index.string());
  } else {
    constexpr const char* kWeights = "model.safetensors or model.safetensors.index.json";
    refuse_unfinished(folder, kWeights);
    throw Error({"the model directory holds no weights",
                 folder.string(),
                 {},
                 kWeights,
                 "neither",
                 "the download may be incomplete"});
  }
}

bool begins_with_gguf_magic(const std::string& path) {
  const auto file = open_file(path);
  if (file->size() < 4) return false;
  uint32_t magic;
  file->read(0, std::as_writable_bytes(std::span(&magic, 1)));
  return magic == kGgufMagic;
}

}  // namespace

const char* name_of(CheckpointKind kind) {
  switch (kind) {
    case CheckpointKind::kGguf:
      return "GGUF";
    case CheckpointKind::kSafetensors:
      return "safetensors";
    case CheckpointKind::kHfDirectory:
      return "Hugging Face directory";
  }
  return "unknown";
}

Checkpoint open_checkpoint(const std::string& path) {
  Checkpoint checkpoint;
  checkpoint.path = path;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    open_directory(path, checkpoint);
    return checkpoint;
  }
  if (path.ends_with(".gguf") || begins_with_gguf_magic(path)) {
    auto gguf = open_gguf(path);
    checkpoint.kind = CheckpointKind::kGguf;
    checkpoint.gguf = gguf.get();
    checkpoint.tensors = join_gate_up_experts(std::move(gguf));
    return checkpoint;
  }
  if (!path.ends_with(".safetensors")) {
    throw Error({"not a model",
                 path,
                 {},
                 "a .gguf file, a .safetensors file or a directory with config.json",
                 {},
                 {}});
  }
  checkpoint.kind = CheckpointKind::kSafetensors;
  checkpoint.tensors = open_safetensors(path);
  read_side_files(fs::path(path).parent_path(), checkpoint);
  return checkpoint;
}

}  // namespace carat::io
