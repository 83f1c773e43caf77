#include "io/safetensors_reader.h"

#include <cstddef>
#include <unordered_map>

#include "base/error.h"
#include "io/names.h"
#include "io/safetensors_parse.h"

namespace carat::io {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

[[noreturn]] void fail_tensor(const std::string& path, const std::string& name, std::string what,
                              std::string expected, std::string got) {
  throw Error({std::move(what), path, "tensor " + in_quotes(name), std::move(expected),
               std::move(got),
               "the index and its files may come from different versions of the checkpoint"});
}

}  // namespace

std::unique_ptr<SafetensorsSource> open_safetensors(const std::string& path) {
  std::unique_ptr<SafetensorsSource> source(new SafetensorsSource());
  SafetensorsHead head = parse_safetensors(*source->add_shard(path).file);
  source->metadata_ = std::move(head.metadata);
  source->set_entries(std::move(head.entries));
  return source;
}

std::unique_ptr<SafetensorsSource> open_safetensors_index(const std::string& path) {
  SafetensorsIndex index;
  try {
    index = parse_safetensors_index(read_text_file(path, kSafetensorsMaxHeader));
  } catch (const Error& e) {
    throw e.with_file(path);
  }
  struct Place {
    int file;
    bool found = false;
  };
  std::unordered_map<std::string, Place> wanted;
  wanted.reserve(index.tensors.size());
  for (const SafetensorsIndex::Tensor& t : index.tensors) wanted.emplace(t.name, Place{t.file});

  std::unique_ptr<SafetensorsSource> source(new SafetensorsSource());
  std::vector<TensorEntry> entries;
  for (size_t i = 0; i < index.files.size(); ++i) {
    const std::string shard = folder_of(path) + index.files[i];
    SafetensorsHead head = parse_safetensors(*source->add_shard(shard).file);
    if (i == 0) source->metadata_ = std::move(head.metadata);
    for (TensorEntry& t : head.entries) {
      const auto it = wanted.find(t.name);
      if (it == wanted.end())
        fail_tensor(shard, t.name, "the index does not name the tensor", {}, {});
      if (static_cast<size_t>(it->second.file) != i) {
        fail_tensor(shard, t.name, "the tensor is in another file than the index says",
                    in_quotes(index.files[static_cast<size_t>(it->second.file)]), {});
      }
      it->second.found = true;
      t.file = static_cast<int>(i);
      entries.push_back(std::move(t));
    }
  }
  for (const SafetensorsIndex::Tensor& t : index.tensors) {
    if (!wanted.at(t.name).found) {
      fail_tensor(path, t.name, "a tensor that the index names is missing",
                  "in " + in_quotes(index.files[static_cast<size_t>(t.file)]), {});
    }
  }
  source->set_entries(std::move(entries));
  return source;
}

}  // namespace carat::io
