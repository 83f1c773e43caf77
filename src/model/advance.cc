#include "model/advance.h"

#include <vector>

#include "base/error.h"
#include "model/forward.h"

namespace carat::model {

kernels::Value advance_hidden(const Weights& weights, kernels::Ops& ops,
                              std::span<const Chunk> chunks) {
  std::vector<const KvSequence*> sequences;
  std::vector<int32_t> tokens, wanted;
  std::vector<kernels::RowRef> rows;
  for (const Chunk& c : chunks) {
    CHECK(!c.tokens.empty());
    c.sequence->prepare(static_cast<int64_t>(c.tokens.size()));
    const auto index = static_cast<int32_t>(sequences.size());
    sequences.push_back(c.sequence);
    for (size_t i = 0; i < c.tokens.size(); ++i) {
      const bool last = i + 1 == c.tokens.size();
      if (c.wanted == Chunk::Wanted::kAll || (c.wanted == Chunk::Wanted::kLast && last)) {
        wanted.push_back(static_cast<int32_t>(rows.size()));
      }
      tokens.push_back(c.tokens[i]);
      rows.push_back({index, static_cast<int32_t>(c.sequence->length() + static_cast<int64_t>(i))});
    }
  }
  const KvBatch batch(weights.config, sequences);
  Step step;
  step.tokens = tokens;
  step.rows = rows;
  step.wanted = wanted;
  step.kv = [&batch](int64_t layer) { return batch.layer(layer); };
  kernels::Value result = hidden(weights, ops, step);
  for (const Chunk& c : chunks) c.sequence->advance(static_cast<int64_t>(c.tokens.size()));
  return result;
}

kernels::Value advance(const Weights& weights, kernels::Ops& ops, std::span<const Chunk> chunks) {
  return logits_of(weights, ops, advance_hidden(weights, ops, chunks));
}

}  // namespace carat::model
