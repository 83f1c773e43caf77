// The output matrix that some exporters store although it is the token embedding.
#pragma once

#include <atomic>

#include "io/tensor_source.h"
#include "model/config.h"
#include "model/stored.h"

namespace carat::convert {

// A model whose config ties the two computes with the embedding, and a conversion drops a stored
// output matrix. Throws Error if that is not the embedding: then something would be lost, or the
// config is wrong. Interrupted if *stop (may be null) is set. Reads both as a stream.
void check_tied_head(const model::Config& config, const io::TensorSource& source,
                     const model::StoredTensors& stored, const std::atomic<bool>* stop);

}  // namespace carat::convert
