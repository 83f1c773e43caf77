// How many bytes a decode step must read: what its speed is compared with.
#pragma once

#include <cstdint>

#include "kernels/kv_pages.h"
#include "model/load.h"

namespace carat::app {

// Bytes of weights, keys and values read for one token at position `position` of a single
// sequence: every matrix once (the token embedding as output matrix, of experts the active share),
// one row of tables that are looked up, and of each layer the keys and values in its window.
[[nodiscard]] int64_t decode_bytes(const model::Model& model, kernels::KvType kv, int64_t position);

}  // namespace carat::app
