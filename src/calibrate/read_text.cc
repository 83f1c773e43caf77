#include "calibrate/read_text.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/forward.h"
#include "model/kv_cache.h"

namespace carat::calibrate {
namespace {

constexpr int64_t kStep = 512;
constexpr size_t kLeastTail = 16;

class Reader {
 public:
  Reader(const ReadCall& call, InputObserver& observer, ThreadPool& pool,
         const kernels::KernelTable& table, int64_t longest)
      : call_(call),
        weights_(*call.weights),
        inner_(pool, table),
        ops_(inner_, observer),
        sequence_(weights_.config, kernels::KvType::kF32,
                  model::KvPagePool::create(
                      model::kv_bytes(weights_.config, kernels::KvType::kF32, longest, kStep))) {}

  template <class Advance>
  void read(std::span<const int32_t> chunk, Advance advance) {
    sequence_.clear();
    for (size_t at = 0; at < chunk.size(); at += kStep) {
      const auto piece = chunk.subspan(at, std::min<size_t>(kStep, chunk.size() - at));
      run(piece);
      advance(static_cast<int64_t>(piece.size()));
    }
  }

 private:
  void run(std::span<const int32_t> tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    sequence_.prepare(n);
    const model::KvSequence* const sequences[] = {&sequence_};
    const model::KvBatch batch(weights_.config, sequences);
    std::vector<kernels::RowRef> rows;
    std::vector<int32_t> wanted;
    for (int64_t i = 0; i < n; ++i) {
      rows.push_back({0, static_cast<int32_t>(sequence_.length() + i)});
      wanted.push_back(static_cast<int32_t>(i));
    }
    model::Step step;
    step.tokens = tokens;
    step.rows = rows;
    step.wanted = wanted;
    step.kv = [&](int64_t layer) { return batch.layer(layer); };
    const model::Config& config = weights_.config;
    const int64_t end = call_.layers < 0 ? config.n_layers : call_.layers;
    const model::Residual r =
        model::run_layers(weights_, ops_, step, model::embed(weights_, ops_, step), 0, end);
    if (call_.layers < 0) observe_output(r.x);
    sequence_.advance(n);
  }

  void observe_output(const kernels::Value& x) {
    using model::TensorKind;
    const model::Config& config = weights_.config;
    const TensorKind kind =
        config.tied_embeddings ? TensorKind::kTokenEmbedding : TensorKind::kLmHead;
    ops_.observe(
        ops_.rms_norm(x, &weights_.at(TensorKind::kOutputNorm), config.dim, config.norm_eps),
        weights_.at(kind));
  }

  const ReadCall& call_;
  const model::Weights& weights_;
  kernels::CpuOps inner_;
  ObservedOps ops_;
  model::KvSequence sequence_;
};

}  // namespace

std::vector<std::vector<int32_t>> calibration_chunks(std::span<const int32_t> text, int32_t bos,
                                                     const TextOptions& options) {
  CHECK(options.context >= 2 && options.max_tokens >= 0);
  std::vector<std::vector<int32_t>> chunks;
  const auto most = static_cast<size_t>(options.context - 1);
  int64_t total = 0;
  for (size_t at = 0; at < text.size(); at += most) {
    const auto piece = text.subspan(at, std::min(most, text.size() - at));
    if (at > 0 && piece.size() < std::min(most, kLeastTail)) break;
    std::vector<int32_t> chunk = {bos};
    chunk.insert(chunk.end(), piece.begin(), piece.end());
    total += static_cast<int64_t>(chunk.size());
    chunks.push_back(std::move(chunk));
    if (options.max_tokens > 0 && total >= options.max_tokens) break;
  }
  return chunks;
}

void read_chunks(const ReadCall& call, InputObserver& observer, ThreadPool& pool,
                 const kernels::KernelTable& table) {
  int64_t total = 0, longest = 1;
  for (const auto& chunk : call.chunks) {
    total += static_cast<int64_t>(chunk.size());
    longest = std::max(longest, static_cast<int64_t>(chunk.size()));
  }
  const int64_t limit = call.weights->config.max_seq_len;
  if (longest > limit) {
    throw Error({"more tokens at a time than the model's context holds",
                 {},
                 {},
                 "at most " + std::to_string(limit) + " tokens",
                 std::to_string(longest),
                 {}});
  }
  int64_t done = 0;
  Reader reader(call, observer, pool, table, longest);
  for (const auto& chunk : call.chunks) {
    reader.read(chunk, [&](int64_t n) {
      done += n;
      if (call.progress) call.progress(done, total);
      if (call.stop != nullptr && call.stop->load(std::memory_order_relaxed)) throw Interrupted();
    });
  }
}

}  // namespace carat::calibrate
