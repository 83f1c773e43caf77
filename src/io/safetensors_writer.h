// Writes safetensors, one file or a sharded checkpoint with its index, as a stream.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/tensor_writer.h"

namespace carat::io {

// Text pairs for "__metadata__"; transformers wants "format" to be "pt".
using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// Puts tensors of larger elements first, so that all data are aligned; keeps the order among
// equals. The writers refuse an order that leaves a tensor unaligned.
void order_for_safetensors(std::vector<TensorSpec>& specs);

// One file. Throws Error for a type that safetensors has not, or an order as above.
std::unique_ptr<TensorWriter> write_safetensors(
    const std::string& path, std::vector<TensorSpec> specs,
    const SafetensorsMetadata& metadata = {{"format", "pt"}}, const WriteOptions& options = {});

// The weights of a model directory, which exists: "model.safetensors" if the tensors fit
// `max_shard_bytes`, else "model-00001-of-0000N.safetensors" and so on with
// "model.safetensors.index.json". No tensor is split. Refuses a directory that holds other
// model*.safetensors files, with which the new ones would be confused. finish() removes config.json
// and the index of an earlier checkpoint before any weights get their names, so write the new
// config.json after it: a directory without one is not opened.
std::unique_ptr<TensorWriter> write_safetensors_directory(
    const std::string& folder, std::vector<TensorSpec> specs, int64_t max_shard_bytes,
    const SafetensorsMetadata& metadata = {{"format", "pt"}}, const WriteOptions& options = {});

// Paths of the weights that it writes.
[[nodiscard]] std::vector<std::string> safetensors_directory_paths(const std::string& folder,
                                                                   std::vector<TensorSpec> specs,
                                                                   int64_t max_shard_bytes);

// Bytes of the files that write_safetensors_directory writes, the index included. Throws Error for
// tensors that it refuses.
[[nodiscard]] int64_t safetensors_directory_bytes(std::vector<TensorSpec> specs,
                                                  int64_t max_shard_bytes,
                                                  const SafetensorsMetadata& metadata = {
                                                      {"format", "pt"}});

}  // namespace carat::io
