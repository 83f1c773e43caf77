#include "io/safetensors_writer.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <system_error>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "io/names.h"
#include "io/safetensors_parse.h"

namespace carat::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIndexName = "model.safetensors.index.json";

struct Placement {
  int file = 0;
  int64_t begin = 0;  // within the data section of its file
};

class SafetensorsWriter final : public TensorWriter {
 public:
  SafetensorsWriter(std::vector<TensorSpec> specs, const WriteOptions& options)
      : TensorWriter(std::move(specs), kSafetensorsMaxName, options),
        resumable_(options.resumable) {}

  // Fills files one after another up to `max_bytes` each.
  std::vector<Placement> place(int64_t max_bytes) const {
    std::vector<Placement> out;
    Placement next;
    for (size_t i = 0; i < specs().size(); ++i) {
      const int64_t bytes = spec_bytes(i);
      if (next.begin > 0 && bytes > max_bytes - next.begin) next = {next.file + 1, 0};
      check_alignment(specs()[i], next.begin);
      out.push_back(next);
      next.begin = add_or_throw(next.begin, bytes, "the size of the file");
    }
    return out;
  }

  // Bytes of file `file`'s header and its length.
  int64_t head_bytes(int file, const std::vector<Placement>& places,
                     const SafetensorsMetadata& metadata) const {
    return 8 + static_cast<int64_t>(header_of(file, places, metadata).size());
  }
  int64_t data_bytes() const {
    int64_t bytes = 0;
    for (size_t i = 0; i < specs().size(); ++i) {
      bytes = add_or_throw(bytes, spec_bytes(i), "the checkpoint's size");
    }
    return bytes;
  }

  // Writes the headers.
  void start(const std::vector<std::string>& paths, const std::vector<Placement>& places,
             const SafetensorsMetadata& metadata) {
    std::vector<int64_t> data_begin;
    for (size_t f = 0; f < paths.size(); ++f) {
      const int file = add_file(paths[f]);
      const std::string header = header_of(static_cast<int>(f), places, metadata);
      const uint64_t n = header.size();
      if (n > static_cast<uint64_t>(kSafetensorsMaxHeader)) {
        throw Error({"the header would be too large for the format", paths[f], {}, {}, {}, {}});
      }
      put(file, std::as_bytes(std::span(&n, 1)));
      put(file, std::as_bytes(std::span(header)));
      data_begin.push_back(position(file));
    }
    std::vector<Slot> slots;
    for (size_t i = 0; i < places.size(); ++i) {
      const int f = places[i].file;
      slots.push_back({f, data_begin[static_cast<size_t>(f)] + places[i].begin, spec_bytes(i)});
    }
    set_slots(std::move(slots));
  }

  // The directory that the files make up, and its index: empty for one file.
  void set_folder(const std::string& folder, std::string index) {
    folder_ = folder;
    index_text_ = std::move(index);
  }

 private:
  static void check_alignment(const TensorSpec& spec, int64_t begin) {
    const DTypeInfo& i = info(spec.dtype);
    if (!i.safetensors) {
      throw Error({std::string("safetensors has no type ") + i.name,
                   {},
                   "tensor " + in_quotes(spec.name),
                   {},
                   {},
                   {}});
    }
    if (begin % i.block_bytes != 0) {
      throw Error({"the tensor's data would not be aligned",
                   {},
                   "tensor " + in_quotes(spec.name),
                   "tensors of larger elements first",
                   {},
                   {}});
    }
  }

  // Padded with spaces so that the data begin at a multiple of 8.
  std::string header_of(int file, const std::vector<Placement>& places,
                        const SafetensorsMetadata& metadata) const {
    Json header = Json::object();
    for (const auto& [key, value] : metadata) header["__metadata__"][key] = value;
    std::string text = to_json_text(header);
    // ordered_json finds a key by walking, which is slow for thousands: the rest is put together
    // as text.
    text.pop_back();
    bool first = metadata.empty();
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i].file != file) continue;
      const TensorSpec& spec = specs()[i];
      Json tensor;
      tensor["dtype"] = info(spec.dtype).safetensors;
      tensor["shape"] = Json::array();
      for (const int64_t d : spec.shape) tensor["shape"].push_back(d);
      tensor["data_offsets"] = {places[i].begin, places[i].begin + spec_bytes(i)};
      if (!first) text += ',';
      first = false;
      text += to_json_text(Json(spec.name)) + ":" + to_json_text(tensor);
    }
    text += '}';
    text.append(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), 8)) - text.size(),
                ' ');
    return text;
  }

  void retract() override {
    if (folder_.empty()) return;
    std::error_code code;
    const fs::path config = folder_ / "config.json";
    for (const fs::path& path : {config, folder_ / kIndexName}) {
      fs::remove(path, code);
      if (code) {
        throw Error({"cannot replace the file: " + code.message(), path.string(), {}, {}, {}, {}});
      }
    }
    flush_folder_of(config.string());
  }

  void committed() override {
    if (index_text_.empty()) return;
    PartFile index((folder_ / kIndexName).string(), resumable_);
    index.write(std::as_bytes(std::span(index_text_)));
    index.commit();
  }

  const bool resumable_;
  fs::path folder_;
  std::string index_text_;
};

std::string shard_name(size_t i, size_t n) {
  std::array<char, 64> buffer;
  std::snprintf(buffer.data(), buffer.size(), "model-%05zu-of-%05zu.safetensors", i + 1, n);
  return buffer.data();
}

size_t n_files(const std::vector<Placement>& places) {
  return places.empty() ? 1 : static_cast<size_t>(places.back().file) + 1;
}

std::vector<std::string> file_names(size_t n) {
  std::vector<std::string> names;
  for (size_t i = 0; i < n; ++i) names.push_back(n == 1 ? "model.safetensors" : shard_name(i, n));
  return names;
}

std::vector<std::string> paths_in(const fs::path& folder, const std::vector<std::string>& names) {
  std::vector<std::string> paths;
  for (const std::string& name : names) paths.push_back((folder / name).string());
  return paths;
}

// Throws if the folder has weights under other names.
void check_folder(const std::string& folder, const std::vector<std::string>& names) {
  std::error_code ec;
  if (!fs::is_directory(folder, ec)) throw Error({"not a directory", folder, {}, {}, {}, {}});
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const std::string name = entry.path().filename().string();
    const bool weights = name.starts_with("model") && name.ends_with(".safetensors");
    const bool index = name == kIndexName && names.size() == 1;
    if (index || (weights && std::find(names.begin(), names.end(), name) == names.end())) {
      throw Error({"the directory already holds weights under other names",
                   folder,
                   {},
                   {},
                   in_quotes(name),
                   "choose an empty directory"});
    }
  }
}

std::string index_text(const std::vector<TensorSpec>& specs, const std::vector<Placement>& places,
                       const std::vector<std::string>& names, int64_t total) {
  std::map<std::string, std::string> sorted;
  for (size_t i = 0; i < specs.size(); ++i) {
    sorted[specs[i].name] = names[static_cast<size_t>(places[i].file)];
  }
  std::string text = "{\n  \"metadata\": {\n    \"total_size\": " + std::to_string(total) +
                     "\n  },\n  \"weight_map\": {";
  const char* comma = "\n";
  for (const auto& [name, file] : sorted) {
    text += comma;
    text += "    " + to_json_text(Json(name)) + ": " + to_json_text(Json(file));
    comma = ",\n";
  }
  return text + "\n  }\n}\n";
}

}  // namespace

void order_for_safetensors(std::vector<TensorSpec>& specs) {
  std::stable_sort(specs.begin(), specs.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return info(a.dtype).block_bytes > info(b.dtype).block_bytes;
  });
}

std::unique_ptr<TensorWriter> write_safetensors(const std::string& path,
                                                std::vector<TensorSpec> specs,
                                                const SafetensorsMetadata& metadata,
                                                const WriteOptions& options) {
  auto writer = std::make_unique<SafetensorsWriter>(std::move(specs), options);
  writer->start({path}, writer->place(INT64_MAX), metadata);
  return writer;
}

std::unique_ptr<TensorWriter> write_safetensors_directory(const std::string& folder,
                                                          std::vector<TensorSpec> specs,
                                                          int64_t max_shard_bytes,
                                                          const SafetensorsMetadata& metadata,
                                                          const WriteOptions& options) {
  auto writer = std::make_unique<SafetensorsWriter>(std::move(specs), options);
  const std::vector<Placement> places = writer->place(max_shard_bytes);
  const size_t n = n_files(places);
  if (n > static_cast<size_t>(kMaxShards)) {
    throw Error({"the checkpoint would have too many files",
                 folder,
                 {},
                 "at most " + std::to_string(kMaxShards),
                 std::to_string(n),
                 "allow larger files"});
  }
  const std::vector<std::string> names = file_names(n);
  check_folder(folder, names);
  writer->start(paths_in(folder, names), places, metadata);
  writer->set_folder(
      folder, n > 1 ? index_text(writer->specs(), places, names, writer->total_bytes()) : "");
  return writer;
}

std::vector<std::string> safetensors_directory_paths(const std::string& folder,
                                                     std::vector<TensorSpec> specs,
                                                     int64_t max_shard_bytes) {
  const SafetensorsWriter writer(std::move(specs), {});
  return paths_in(folder, file_names(n_files(writer.place(max_shard_bytes))));
}

int64_t safetensors_directory_bytes(std::vector<TensorSpec> specs, int64_t max_shard_bytes,
                                    const SafetensorsMetadata& metadata) {
  const SafetensorsWriter writer(std::move(specs), {});
  const std::vector<Placement> places = writer.place(max_shard_bytes);
  const size_t n = n_files(places);
  int64_t bytes = writer.data_bytes();
  for (size_t f = 0; f < n; ++f) {
    bytes += writer.head_bytes(static_cast<int>(f), places, metadata);
  }
  if (n > 1) {
    bytes += static_cast<int64_t>(
        index_text(writer.specs(), places, file_names(n), writer.data_bytes()).size());
  }
  return bytes;
}

}  // namespace carat::io
