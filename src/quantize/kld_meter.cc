#include "quantize/kld_meter.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "audit/bootstrap.h"
#include "audit/compare.h"
#include "base/error.h"
#include "model/advance.h"
#include "model/forward.h"

namespace carat::quantize {
namespace {

constexpr int64_t kStep = 256;                 // tokens in one pass
constexpr int64_t kLogits = int64_t{1} << 22;  // of a model at a time
constexpr kernels::KvType kKv = kernels::KvType::kF32;

int64_t longest(std::span<const std::vector<int32_t>> chunks) {
  size_t most = 0;
  for (const auto& c : chunks) most = std::max(most, c.size());
  return static_cast<int64_t>(most);
}

int64_t checked_budget(const KldMeter::Call& call) {
  const model::Config& config = call.model->config;
  const int64_t most = longest(call.chunks);
  if (most > config.max_seq_len) {
    throw Error({"more tokens at a time than the model's context holds",
                 {},
                 {},
                 fmt::format("at most {} tokens", config.max_seq_len),
                 fmt::format("{}", most),
                 {}});
  }
  return model::kv_bytes(config, kKv, most, kStep);
}

}  // namespace

double Klds::mean() const {
  double sum = 0, n = 0;
  for (const double s : sums) sum += s;
  for (const int64_t c : counts) n += static_cast<double>(c);
  return n > 0 ? sum / n : 0;
}

audit::Figure Klds::figure() const {
  audit::Figure figure{mean(), {}};
  if (sums.size() < 2) return figure;
  audit::ChunkSums table(sums.size(), 2);
  for (size_t c = 0; c < sums.size(); ++c) {
    table.at(c, 0) = sums[c];
    table.at(c, 1) = static_cast<double>(counts[c]);
  }
  const audit::Ratio ratio{0, 1};
  figure.interval =
      audit::ratio_intervals(table, {&ratio, 1}, audit::ChunkDraws(sums.size(), {}), nullptr)[0];
  return figure;
}

KldDifference difference(const Klds& a, const Klds& b) {
  CHECK(a.counts == b.counts);
  KldDifference d{a.mean() - b.mean(), std::numeric_limits<double>::infinity()};
  const auto n = static_cast<double>(a.sums.size());
  if (n < 2) return d;
  double positions = 0, squares = 0;
  for (const int64_t c : a.counts) positions += static_cast<double>(c);
  for (size_t c = 0; c < a.sums.size(); ++c) {
    const double off = a.sums[c] - b.sums[c] - d.mean * static_cast<double>(a.counts[c]);
    squares += off * off;
  }
  d.error = std::sqrt(squares * n / (n - 1)) / positions;
  return d;
}

KldMeter::KldMeter(const Call& call, ThreadPool& pool, const kernels::KernelTable& table)
    : call_(call),
      pool_(pool),
      ops_(pool, table),
      sequence_(call.model->config, kKv, model::KvPagePool::create(checked_budget(call))),
      vocab_(static_cast<size_t>(call.model->config.vocab_size)),
      chunks_(call.chunks.begin(), call.chunks.end()) {
  for (const auto& c : chunks_) {
    const auto n = static_cast<int64_t>(c.size());
    CHECK(n > kFewestBefore);
    tokens_ += n;
    positions_ += n - kFewestBefore;
  }
  const model::Config& config = call.model->config;
  keeps_logits_ = positions_ <= call.memory / (config.vocab_size * 4);
  const auto width = static_cast<size_t>(keeps_logits_ ? config.vocab_size : config.dim);
  for (size_t c = 0; c < chunks_.size(); ++c) {
    kept_.emplace_back((chunks_[c].size() - kFewestBefore) * width);
    read(*call.model, c, [&](const kernels::Value& hidden, int64_t first, int64_t n) {
      const auto out = std::span(kept_[c]).subspan(static_cast<size_t>(first) * width,
                                                   static_cast<size_t>(n) * width);
      if (keeps_logits_) {
        logits(*call_.model, hidden, 0, n, out);
      } else {
        ops_.read(hidden, out);
      }
    });
  }
}

// Calls f(hidden states, number of the first of them, how many) for the positions of a chunk that
// are compared, in order.
template <class F>
void KldMeter::read(const model::Weights& weights, size_t chunk, F f) {
  const std::vector<int32_t>& tokens = chunks_[chunk];
  const auto length = static_cast<int64_t>(tokens.size());
  sequence_.clear();
  for (int64_t begin = 0; begin < length; begin += kStep) {
    if (call_.stop != nullptr && call_.stop->load(std::memory_order_relaxed)) throw Interrupted();
    const int64_t end = std::min(begin + kStep, length);
    const model::Chunk step{
        &sequence_,
        std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        model::Chunk::Wanted::kAll};
    const kernels::Value hidden = model::advance_hidden(weights, ops_, {&step, 1});
    // After the last token of a chunk nothing is known to come.
    std::vector<int32_t> rows;
    for (int64_t i = std::max(begin, kFewestBefore - 1); i < std::min(end, length - 1); ++i) {
      rows.push_back(static_cast<int32_t>(i - begin));
    }
    if (rows.empty()) continue;
    f(ops_.take_rows(hidden, rows), begin + rows.front() - (kFewestBefore - 1),
      static_cast<int64_t>(rows.size()));
  }
  sequence_.clear();
  if (call_.advance) call_.advance(length);
}

// Of rows [first, first + n) of hidden states.
void KldMeter::logits(const model::Weights& weights, const kernels::Value& hidden, int64_t first,
                      int64_t n, std::span<float> out) {
  const int64_t at_once = std::max<int64_t>(1, kLogits / static_cast<int64_t>(vocab_));
  for (int64_t begin = 0; begin < n; begin += at_once) {
    const int64_t rows = std::min(at_once, n - begin);
    std::vector<int32_t> wanted;
    for (int64_t i = 0; i < rows; ++i) wanted.push_back(static_cast<int32_t>(first + begin + i));
    ops_.read(model::logits_of(weights, ops_, ops_.take_rows(hidden, wanted)),
              out.subspan(static_cast<size_t>(begin) * vocab_, static_cast<size_t>(rows) * vocab_));
  }
}

std::vector<int64_t> KldMeter::counts(std::span<const std::vector<int32_t>> chunks) {
  std::vector<int64_t> counts;
  for (const auto& c : chunks) counts.push_back(static_cast<int64_t>(c.size()) - kFewestBefore);
  return counts;
}

Klds KldMeter::measure(const model::Weights& weights) {
  Klds klds;
  klds.counts = counts(chunks_);
  const int64_t at_once = std::max<int64_t>(1, kLogits / static_cast<int64_t>(vocab_));
  std::vector<double> found;
  for (size_t c = 0; c < chunks_.size(); ++c) {
    double sum = 0;
    read(weights, c, [&](const kernels::Value& hidden, int64_t first, int64_t n) {
      for (int64_t begin = 0; begin < n; begin += at_once) {
        const int64_t rows = std::min(at_once, n - begin);
        const size_t values = static_cast<size_t>(rows) * vocab_;
        b_.resize(values);
        logits(weights, hidden, begin, rows, b_);
        const float* reference = nullptr;
        if (keeps_logits_) {
          reference = kept_[c].data() + static_cast<size_t>(first + begin) * vocab_;
        } else {
          const int64_t dim = call_.model->config.dim;
          a_.resize(values);
          const kernels::Value before =
              ops_.input(rows, dim,
                         std::span(kept_[c]).subspan(static_cast<size_t>((first + begin) * dim),
                                                     static_cast<size_t>(rows * dim)));
          logits(*call_.model, before, 0, rows, a_);
          reference = a_.data();
        }
        found.assign(static_cast<size_t>(rows), 0);
        pool_.parallel_for(rows, 4, [&](int64_t from, int64_t to, int) {
          for (int64_t i = from; i < to; ++i) {
            const size_t at = static_cast<size_t>(i) * vocab_;
            found[static_cast<size_t>(i)] =
                audit::compare_position({reference + at, vocab_}, {b_.data() + at, vocab_}, 0).kld;
          }
        });
        for (const double k : found) sum += k;
      }
    });
    if (!std::isfinite(sum)) {
      throw Error("a model with these types does not predict finite numbers");
    }
    klds.sums.push_back(sum);
  }
  return klds;
}

}  // namespace carat::quantize
