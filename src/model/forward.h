// Gemma 4's forward pass, written once against Ops (formats.md 2.2 in the design library; docs/
// architecture.md in the repository).
#pragma once

#include <functional>
#include <span>

#include "kernels/ops.h"
#include "model/weights.h"

namespace carat::model {

// The rows of one call: tokens of one or more sequences, each sequence's rows in ascending
// position.
struct Step {
  std::span<const int32_t> tokens;        // [n], each in [0, vocab_size)
  std::span<const kernels::RowRef> rows;  // [n]
  std::span<const int32_t> wanted;        // ascending indices of rows whose logits are asked for
  // Pages of an owning layer, one per sequence. Empty on the tape.
  std::function<std::span<const kernels::KvLayer>(int64_t layer)> kv;
  bool skip = true;  // rows without wanted logits leave after the last layer that owns K and V
};

// The residual stream between layers.
struct Residual {
  kernels::Value x;             // [rows, dim]
  kernels::Value embedded;      // scaled token embeddings; feeds the per-layer inputs
  std::vector<int32_t> tokens;  // of the rows that are still in flight
  std::vector<kernels::RowRef> rows;
  bool reduced = false;  // only wanted rows are left
};

Residual embed(const Weights& weights, kernels::Ops& ops, const Step& step);
// Runs layers [begin, end): residual in, residual out.
Residual run_layers(const Weights& weights, kernels::Ops& ops, const Step& step, Residual residual,
                    int64_t begin, int64_t end);
// All layers: what the wanted rows are after the last one, [wanted.size(), dim].
kernels::Value hidden(const Weights& weights, kernels::Ops& ops, const Step& step);
// Final norm, output matrix, softcap: the logits [rows, vocab_size] of rows of the above.
kernels::Value logits_of(const Weights& weights, kernels::Ops& ops, const kernels::Value& hidden);

// All of the above. [wanted.size(), vocab_size].
kernels::Value forward(const Weights& weights, kernels::Ops& ops, const Step& step);

}  // namespace carat::model
