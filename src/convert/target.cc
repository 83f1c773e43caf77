#include "convert/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "convert/journal.h"
#include "io/safetensors_writer.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";

bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code ignored;
  return fs::equivalent(a, b, ignored);
}

// The files that grow beside the target replace what bears their names, so those count too.
void refuse_source(const ConvertOptions& options, const std::vector<std::string>& files,
                   const std::vector<std::string>& source_paths) {
  const std::string journal = journal_path(options.target, is_directory(options.format));
  for (const fs::path source : source_paths) {
    for (const std::string& file : files) {
      if (is_same_file(source, file) || is_same_file(fs::absolute(source).parent_path(), file)) {
        throw Error({"the target is the source", file, {}, {}, {}, "name another target"});
      }
      for (const std::string& beside : {file + ".part", journal}) {
        if (!is_same_file(source, beside)) continue;
        throw Error({"a file that the conversion writes on the way is the source",
                     options.target,
                     {},
                     {},
                     beside,
                     "name another target"});
      }
    }
  }
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
  if (fs::is_directory(target, code)) {
    for (const auto& entry : fs::directory_iterator(target, code)) {
      if (entry.path().extension() == ".part") add(entry.path());
    }
    return bytes;
  }
  std::vector<std::string> files = journal_files(journal_path(target, false));
  if (files.empty()) files = {target};
  for (const std::string& file : files) add(file + ".part");
  return bytes;
}

std::unique_ptr<io::TensorWriter> make_writer(const TargetParts& parts,
                                              const io::WriteOptions& write) {
  std::vector<io::TensorSpec> specs = all_specs(parts);
  if (parts.is_folder) {
    return io::write_safetensors_directory(parts.path, std::move(specs), parts.max_file_bytes,
                                           {{"format", "pt"}}, write);
  }
  return std::make_unique<io::GgufWriter>(parts.path, parts.fields, std::move(specs), write,
                                          parts.max_file_bytes);
}

}  // namespace

std::vector<io::TensorSpec> all_specs(const TargetParts& parts) {
  std::vector<io::TensorSpec> specs = parts.specs;
  if (!parts.rope_freqs.empty()) {
    specs.push_back(
        {model::kRopeFreqsName, DType::kF32, {static_cast<int64_t>(parts.rope_freqs.size())}});
  }
  return specs;
}

std::vector<std::string> file_paths(const TargetParts& parts) {
  return parts.is_folder
             ? io::safetensors_directory_paths(parts.path, all_specs(parts), parts.max_file_bytes)
             : io::gguf_paths(parts.path, all_specs(parts), parts.max_file_bytes);
}

bool is_published(const std::string& folder, const std::vector<std::string>& files) {
  std::error_code ignored;
  return fs::exists(folder.empty() ? fs::path(files.front()) : fs::path(folder) / kConfig, ignored);
}

Target::Target(TargetParts parts, bool resumable)
    : parts_(std::move(parts)), resumable_(resumable) {
  const fs::path folder(parts_.path);
  if (parts_.is_folder) {
    std::error_code code;
    made_ = fs::create_directory(folder, code);
    if (code) {
      throw Error({"cannot make the directory: " + code.message(), parts_.path, {}, {}, {}, {}});
    }
  }
  try {
    std::stable_partition(parts_.texts.begin(), parts_.texts.end(),
                          [](const auto& text) { return text.first != kConfig; });
    for (auto& [name, text] : parts_.texts) {
      texts_.push_back(std::make_unique<io::PartFile>((folder / name).string(), resumable));
      texts_.back()->write(std::as_bytes(std::span(text)));
    }
    parts_.texts.clear();
    writer_ = make_writer(parts_, {.resumable = resumable});
  } catch (...) {
    clean_up();
    throw;
  }
}

Target::~Target() {
  if (!finished_) clean_up();
}

void Target::flush() {
  if (!parts_.rope_freqs.empty()) {
    writer_->write(model::kRopeFreqsName, std::as_bytes(std::span(parts_.rope_freqs)));
  }
  writer_->flush();
  for (const auto& text : texts_) text->flush();
  flushed_ = true;
}

void Target::finish() {
  if (!flushed_) flush();
  if (resumable_) writer_->keep();
  writer_->finish();
  for (const auto& text : texts_) text->commit();
  finished_ = true;
}

void Target::clean_up() {
  writer_.reset();
  texts_.clear();
  std::error_code ignored;
  if (made_) fs::remove(parts_.path, ignored);  // only if it is empty
}

TargetParts hf_parts(const ConvertOptions& options, const model::Model& model,
                     const SideFiles& side, const Json& config, std::vector<io::TensorSpec> specs) {
  const text::Vocab* vocab = model.tokenizer ? &model.tokenizer->vocab() : nullptr;
  SideFiles all = side;
  if (all.generation_config.empty()) {
    all.generation_config = generation_config_text(model.generation, vocab);
  }
  TargetParts parts;
  parts.path = options.target;
  parts.is_folder = true;
  parts.texts = hf_texts(config, vocab, all);
  parts.specs = std::move(specs);
  parts.max_file_bytes = options.max_shard_bytes;
  return parts;
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
  refuse_source(options, {options.target}, source.paths());
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

void check_files(const TargetParts& parts, const ConvertOptions& options,
                 const std::vector<std::string>& source_paths) {
  const std::vector<std::string> files = file_paths(parts);
  refuse_source(options, files, source_paths);
  if (parts.is_folder || options.overwrite) return;
  std::error_code ignored;
  const bool unfinished =
      !is_published("", files) && fs::exists(journal_path(options.target, false), ignored);
  for (const std::string& file : files) {
    if (unfinished || !fs::exists(file, ignored)) continue;
    throw Error({"the target exists already", file, {}, {}, {}, "--force replaces it"});
  }
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
