#include "io/gguf_reader.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "io/gguf_parse.h"
#include "io/gguf_split.h"
#include "io/names.h"

namespace carat::io {

// The head of one file, and which shard that file is.
struct GgufFile::Part {
  GgufHead head;
  int shard = 0;
};

GgufFile::GgufFile(const std::string& path) {
  std::vector<Part> parts;
  parts.push_back(open_part(path));
  const GgufSplit split = parts.front().head.split;
  if (split.count > 1) {
    const std::vector<std::string> paths = part_paths(path, split);
    for (int64_t i = 0; i < split.count; ++i) {
      if (i == split.number) continue;
      const std::string& other = paths[static_cast<size_t>(i)];
      parts.push_back(open_part(other));
      check_part(other, parts.back().head.split, i, split);
    }
    std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
      return a.head.split.number < b.head.split.number;
    });
  }
  join(std::move(parts));
}

GgufFile::Part GgufFile::open_part(const std::string& path) {
  const Shard& shard = add_shard(path);
  Part part{parse_gguf(shard.mapping.bytes(), path), static_cast<int>(shards().size()) - 1};
  head_bytes_.push_back(part.head.data_begin);
  return part;
}

void GgufFile::join(std::vector<Part> parts) {
  std::vector<TensorEntry> entries;
  std::unordered_set<std::string> seen;
  for (Part& part : parts) {
    for (TensorEntry& entry : part.head.entries) {
      entry.file = part.shard;
      if (parts.size() > 1 && !seen.insert(entry.name).second) {
        throw Error({"a tensor is in two parts of a split model",
                     shards()[static_cast<size_t>(part.shard)]->file->path(),
                     "tensor " + in_quotes(entry.name),
                     {},
                     {},
                     "the folder holds parts of different downloads"});
      }
      entries.push_back(std::move(entry));
    }
  }
  const int64_t stated = parts.front().head.split.tensors;
  if (stated >= 0 && stated != static_cast<int64_t>(entries.size())) {
    throw Error({"the parts of a split model do not hold all of its tensors",
                 shards()[static_cast<size_t>(parts.front().shard)]->file->path(),
                 "key \"split.tensors.count\"", std::to_string(stated) + " tensors",
                 std::to_string(entries.size()), "the folder holds parts of different downloads"});
  }
  metadata_ = std::move(parts.front().head.metadata);
  set_entries(std::move(entries));
}

void GgufFile::release_metadata() const {
  for (size_t i = 0; i < shards().size(); ++i) shards()[i]->mapping.release(0, head_bytes_[i]);
}

std::unique_ptr<GgufFile> open_gguf(const std::string& path) {
  return std::make_unique<GgufFile>(path);
}

}  // namespace carat::io
