#include "io/mapped_source.h"

#include <cstdint>
#include <utility>

#include "base/error.h"
#include "io/names.h"

namespace carat::io {
namespace {

// What a kernel may assume of a pointer to the type's data.
int64_t natural_alignment(DType dtype) {
  const DTypeInfo& i = info(dtype);
  return i.block_elements == 1 ? i.block_bytes : 2;
}

}  // namespace

const MappedSource::Shard& MappedSource::add_shard(const std::string& path) {
  shards_.push_back(std::make_unique<Shard>(path));
  const Shard& shard = *shards_.back();
  if (shard.file->size() != static_cast<int64_t>(shard.mapping.bytes().size())) {
    throw Error({"the file changed while it was opened", path, {}, {}, {}, {}});
  }
  return shard;
}

void MappedSource::set_entries(std::vector<TensorEntry> entries) {
  entries_ = std::move(entries);
  index_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) CHECK(index_.emplace(entries_[i].name, i).second);
}

const TensorEntry* MappedSource::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

const MappedSource::Shard& MappedSource::shard_of(const TensorEntry& entry) const {
  CHECK(entry.file >= 0 && static_cast<size_t>(entry.file) < shards_.size());
  return *shards_[static_cast<size_t>(entry.file)];
}

const std::string& MappedSource::path_of(const TensorEntry& entry) const {
  return shard_of(entry).file->path();
}

std::vector<std::string> MappedSource::paths() const {
  std::vector<std::string> paths;
  for (const auto& shard : shards_) paths.push_back(shard->file->path());
  return paths;
}

TensorView MappedSource::view(const TensorEntry& entry) const {
  const int64_t alignment = natural_alignment(entry.dtype);
  if (entry.offset % alignment != 0) {
    throw Error({"the tensor's data are not aligned", path_of(entry),
                 "tensor " + in_quotes(entry.name),
                 "an offset that is a multiple of " + std::to_string(alignment) + " for " +
                     name_of(entry.dtype),
                 std::to_string(entry.offset),
                 "save the checkpoint again with a current version of safetensors"});
  }
  return {entry.dtype, entry.shape, shard_of(entry).mapping.bytes().data() + entry.offset};
}

const RandomAccessFile& MappedSource::file_of(const TensorEntry& entry) const {
  return *shard_of(entry).file;
}

void MappedSource::release(const TensorEntry& entry, int64_t offset, int64_t length) const {
  CHECK(offset >= 0 && length >= 0 && length <= entry.bytes - offset);
  shard_of(entry).mapping.release(entry.offset + offset, length);
}

}  // namespace carat::io
