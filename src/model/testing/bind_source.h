// The weights of a checkpoint in memory, for tests.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/load.h"
#include "model/testing/memory_source.h"

namespace carat::model::testing {

inline Weights bind_checkpoint(const Config& config, io::Checkpoint checkpoint,
                               std::vector<std::string>* notes = nullptr) {
  const StoredTensors stored(checkpoint, config);
  std::shared_ptr<const io::TensorSource> source = std::move(checkpoint.tensors);
  return bind_weights(config, stored, source, notes);
}

inline Weights bind_source(const Config& config, std::unique_ptr<MemorySource> source,
                           std::vector<std::string>* notes = nullptr) {
  source->finish();
  io::Checkpoint checkpoint;
  checkpoint.path = "memory";
  checkpoint.tensors = std::move(source);
  return bind_checkpoint(config, std::move(checkpoint), notes);
}

}  // namespace carat::model::testing
