// Runs the forward pass on the processor the way an engine does, for tests.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "model/forward.h"
#include "model/kv_cache.h"

namespace carat::model::testing {

struct RunOptions {
  int threads = 1;
  int64_t chunk = 1 << 20;
  kernels::KvType kv = kernels::KvType::kF32;
  bool skip = true;
  std::vector<int64_t> wanted;  // positions; empty: all
  bool want_none = false;
};

// Logits of the wanted positions, one row after the other.
inline std::vector<float> run_forward(const Weights& w, const std::vector<int32_t>& tokens,
                                      const RunOptions& o) {
  ThreadPool pool(o.threads);
  kernels::CpuOps ops(pool);
  KvSequence sequence(w.config, o.kv, KvPagePool::create(int64_t{1} << 30));
  std::vector<float> out;
  const auto total = static_cast<int64_t>(tokens.size());
  for (int64_t begin = 0; begin < total; begin += o.chunk) {
    const int64_t n = std::min(o.chunk, total - begin);
    std::vector<kernels::RowRef> rows;
    std::vector<int32_t> wanted;
    for (int64_t i = 0; i < n; ++i) {
      rows.push_back({0, static_cast<int32_t>(begin + i)});
      const bool want = o.wanted.empty() ||
                        std::find(o.wanted.begin(), o.wanted.end(), begin + i) != o.wanted.end();
      if (want && !o.want_none) wanted.push_back(static_cast<int32_t>(i));
    }
    sequence.prepare(n);
    const KvSequence* const sequences[] = {&sequence};
    const KvBatch batch(w.config, sequences);
    Step step;
    step.tokens = std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(n));
    step.rows = rows;
    step.wanted = wanted;
    step.kv = [&](int64_t layer) { return batch.layer(layer); };
    step.skip = o.skip;
    const kernels::Value logits = forward(w, ops, step);
    const size_t at = out.size();
    out.resize(at + static_cast<size_t>(logits->rows * logits->cols));
    ops.read(logits, std::span(out).subspan(at));
    sequence.advance(n);
  }
  return out;
}

}  // namespace carat::model::testing
