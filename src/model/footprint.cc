#include "model/footprint.h"

#include <algorithm>

#include "base/checked.h"
#include "base/large_memory.h"
#include "model/footprint_ops.h"
#include "model/forward.h"
#include "model/kv_cache.h"
#include "model/load.h"
#include "model/pack.h"

namespace carat::model {
namespace {

// A file that has a place for every weight and no bytes.
class NoFile final : public RandomAccessFile {
 public:
  const std::string& path() const override { return path_; }
  int64_t size() const override { return 0; }
  void read(int64_t, std::span<std::byte>) const override { CHECK(false); }

 private:
  std::string path_ = "weights that have only shapes";
};

const NoFile kNoFile;

int64_t next_power(int64_t n) {
  int64_t power = 16;
  while (power < n) power *= 2;
  return power;
}

}  // namespace

Weights weights_of_shape(const Config& config,
                         const std::function<StoredType(TensorRef)>& type_of) {
  Weights weights;
  weights.config = config;
  weights.refs = required_tensors(config);
  for (const TensorRef ref : weights.refs) {
    const Shape shape = shape_of(config, ref);
    const StoredType type = type_of(ref);
    kernels::Weight w;
    w.dtype = shape.size() == 1 ? DType::kF32 : type.dtype;
    w.count = shape.size() == 3 ? shape[0] : 1;
    w.rows = shape.size() == 1 ? 1 : shape[shape.size() - 2];
    w.cols = shape.back();
    w.file = &kNoFile;
    if (type.scale_columns > 0) w.scales = {&kNoFile, 0, type.scales, type.scale_columns};
    if (type.static_input) w.input_scale = 1;
    w.id = static_cast<int32_t>(weights.all.size());
    weights.all.push_back(w);
  }
  weights.index();
  return weights;
}

WeightMemory weight_memory(const Weights& weights) {
  WeightMemory memory;
  memory.packed = round_up(packed_bytes(weights), LargeMemory::kPage);
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const kernels::Weight& w = weights.all[i];
    const int64_t bytes = w.count * w.rows * w.row_size();
    if (is_packed_kind(weights.config, weights.refs[i], w)) continue;
    if (is_looked_up_only(weights.config, weights.refs[i].kind)) {
      memory.in_file += bytes;
    } else if (w.count * w.rows > 1) {
      memory.mapped += bytes;
    } else {
      memory.vectors += bytes;
    }
  }
  return memory;
}

KvMemory kv_memory(const Config& config, kernels::KvType type, int64_t n_tokens, int64_t chunk) {
  KvMemory memory;
  memory.global = ceil_div(n_tokens, kernels::kKvPageTokens) * KvLayout(config, type).global_bytes;
  memory.local = kv_bytes(config, type, n_tokens, chunk) - memory.global;
  return memory;
}

int64_t activation_bytes(const Weights& weights, kernels::KvType kv, int64_t rows, int threads) {
  CHECK(rows >= 1 && threads >= 1);
  FootprintOps ops(kv, threads);
  const std::vector<int32_t> tokens(static_cast<size_t>(rows), 0);
  std::vector<kernels::RowRef> refs;
  for (int64_t i = 0; i < rows; ++i) refs.push_back({0, static_cast<int32_t>(i)});
  const std::vector<int32_t> wanted = {static_cast<int32_t>(rows - 1)};
  Step step;
  step.tokens = tokens;
  step.rows = refs;
  step.wanted = wanted;
  (void)forward(weights, ops, step);
  return ops.peak_bytes() + 4 * weights.config.vocab_size;
}

int64_t tokenizer_bytes(const text::Vocab& vocab) {
  const int64_t pieces = vocab.size(), merges = static_cast<int64_t>(vocab.merges.size());
  const auto text = static_cast<int64_t>(vocab.arena.size());
  const auto scores = static_cast<int64_t>(vocab.scores.size());
  constexpr int64_t kSlot = 4, kPair = 16;  // of the tables by which pieces and merges are found
  return text + (pieces + 1) * 4 + pieces + scores * 4 +
         merges * static_cast<int64_t>(sizeof(text::Vocab::Merge)) +
         next_power(2 * pieces) * kSlot + next_power(2 * merges) * kPair;
}

}  // namespace carat::model
