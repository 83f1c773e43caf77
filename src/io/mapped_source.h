// What the readers share: mapped files, their tensors, and look-up by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "io/tensor_source.h"

namespace carat::io {

class MappedSource : public TensorSource {
 public:
  const std::vector<TensorEntry>& entries() const override { return entries_; }
  const TensorEntry* find(std::string_view name) const override;
  const std::string& path_of(const TensorEntry& entry) const override;
  std::vector<std::string> paths() const override;
  // Throws Error if the data do not lie at a multiple of their element's size, which only a
  // safetensors file can do: read such a tensor through file_of.
  TensorView view(const TensorEntry& entry) const override;
  const RandomAccessFile& file_of(const TensorEntry& entry) const override;
  void release(const TensorEntry& entry, int64_t offset, int64_t length) const override;

 protected:
  struct Shard {
    explicit Shard(const std::string& path) : mapping(path), file(open_file(path)) {}
    MappedFile mapping;
    std::unique_ptr<RandomAccessFile> file;
  };

  MappedSource() = default;
  const Shard& add_shard(const std::string& path);
  const std::vector<std::unique_ptr<Shard>>& shards() const { return shards_; }
  // Called once, with checked entries of unique names.
  void set_entries(std::vector<TensorEntry> entries);

 private:
  const Shard& shard_of(const TensorEntry& entry) const;

  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string_view, size_t> index_;
};

}  // namespace carat::io
