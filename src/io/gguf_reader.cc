#include "io/gguf_reader.h"

#include <utility>

#include "io/gguf_parse.h"

namespace carat::io {

GgufFile::GgufFile(const std::string& path) {
  const Shard& shard = add_shard(path);
  GgufHead head = parse_gguf(shard.mapping.bytes(), path);
  metadata_ = std::move(head.metadata);
  alignment_ = head.alignment;
  data_begin_ = head.data_begin;
  set_entries(std::move(head.entries));
}

void GgufFile::release_metadata() const { shards()[0]->mapping.release(0, data_begin_); }

std::unique_ptr<GgufFile> open_gguf(const std::string& path) {
  return std::make_unique<GgufFile>(path);
}

}  // namespace carat::io
