#include "audit/audit.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "audit/chunk_reader.h"
#include "audit/precision.h"
#include "audit/resume.h"
#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

constexpr const char* kNoiseRecord = "noise";

int64_t vocab_of(const Reference& reference) {
  return reference.model ? reference.model->vocab_size() : reference.stored->vocab_size();
}

void check_models(const AuditModels& models, std::span<const Chunk> chunks) {
  CHECK(!models.references.empty() && !models.candidates.empty());
  const int64_t vocab = vocab_of(models.references.front());
  size_t longest = 0;
  for (const Chunk& chunk : chunks) longest = std::max(longest, chunk.tokens.size());
  const auto check = [&](const LogitSource& model) {
    if (model.vocab_size() != vocab) {
      throw Error({"the vocabulary differs from the reference's",
                   model.name(),
                   {},
                   std::to_string(vocab) + " tokens",
                   std::to_string(model.vocab_size()) + " tokens",
                   "only models that share a tokenizer can be compared"});
    }
    if (static_cast<int64_t>(longest) > model.max_context()) {
      throw Error({"the context asked for is longer than the model's",
                   model.name(),
                   "--context",
                   "at most " + std::to_string(model.max_context()),
                   std::to_string(longest),
                   {}});
    }
  };
  for (const Reference& r : models.references) {
    CHECK((r.model != nullptr) != (r.stored != nullptr));
    if (r.model) check(*r.model);
    if (r.stored && r.stored->vocab_size() != vocab) {
      throw Error({"the vocabularies of the references differ",
                   r.stored->path(),
                   {},
                   std::to_string(vocab),
                   std::to_string(r.stored->vocab_size()),
                   {}});
    }
  }
  for (const LogitSource* candidate : models.candidates) check(*candidate);
}

// The first reference against itself, computed in another way, over the start of a chunk.
double measure_noise(LogitSource& reference, LogitSource& again, const Chunk& chunk,
                     ThreadPool& pool) {
  const auto vocab = static_cast<size_t>(reference.vocab_size());
  const auto n = std::min(static_cast<size_t>(reference.rows_at_once()), chunk.compared.size());
  const auto rows = std::span(chunk.compared).first(n);
  const auto read = std::span(chunk.tokens).first(static_cast<size_t>(rows.back()) + 1);
  std::vector<float> first(n * vocab), second(n * vocab);
  reference.start(read);
  reference.read(rows, first);
  again.start(read);
  again.read(rows, second);
  std::vector<double> kld(n);
  pool.parallel_for(static_cast<int64_t>(n), 1, [&](int64_t from, int64_t to, int) {
    for (auto i = static_cast<size_t>(from); i < static_cast<size_t>(to); ++i) {
      kld[i] = compare_position(std::span(first).subspan(i * vocab, vocab),
                                std::span(second).subspan(i * vocab, vocab),
                                chunk.tokens[static_cast<size_t>(rows[i]) + 1])
                   .kld;
    }
  });
  return *std::max_element(kld.begin(), kld.end());
}

template <class T>
std::vector<T> values_of(const std::vector<std::byte>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// One audit that is being run.
class Run {
 public:
  Run(const AuditModels& models, std::span<const Chunk> chunks, const AuditOptions& options,
      ThreadPool& pool, const AuditHooks& hooks)
      : models_(models),
        chunks_(chunks),
        options_(options),
        pool_(pool),
        hooks_(hooks),
        order_(visiting_order(chunks.size(), options)),
        trackers_(pairs()) {
    for (const Chunk& chunk : chunks) {
      progress_.total += static_cast<int64_t>(chunk.compared.size());
    }
    found_.resize(chunks.size());
  }

  AuditResult run() {
    AuditResult result;
    result.noise_kld = noise();
    ChunkReader reader(models_, pool_, hooks_.save);
    for (size_t k = 0; k < order_.size(); ++k) {
      if (options_.precision > 0 && is_precise()) break;
      const size_t c = order_[k];
      if (!take_finished(c)) compute(reader, k);
      for (size_t p = 0; p < pairs(); ++p) trackers_[p].add(found_[c][p]);
      update_progress();
    }
    if (options_.precision > 0) result.precise = is_precise();
    collect(result);
    return result;
  }

 private:
  size_t pairs() const { return models_.references.size() * models_.candidates.size(); }

  std::vector<double> noise() {
    LogitSource* reference = models_.references.front().model;
    if (reference == nullptr || models_.again.empty()) return {};
    if (const auto* stored = hooks_.state ? hooks_.state->find(kNoiseRecord, 0) : nullptr) {
      return values_of<double>(*stored);
    }
    const Chunk& first = chunks_[order_.front()];
    reference->look_ahead(coming_from(0));
    const Chunk* const only[] = {&first};
    std::vector<double> kld;
    for (LogitSource* again : models_.again) {
      again->look_ahead(only);
      kld.push_back(measure_noise(*reference, *again, first, pool_));
      check_stop();
    }
    if (hooks_.state) hooks_.state->add(kNoiseRecord, 0, std::as_bytes(std::span(kld)));
    return kld;
  }

  // What an earlier run has found about a chunk.
  bool take_finished(size_t c) {
    if (hooks_.state == nullptr) return false;
    std::vector<std::vector<Position>> found;
    for (size_t p = 0; p < pairs(); ++p) {
      const auto* stored = hooks_.state->find(record_name(p), static_cast<int64_t>(c));
      if (stored == nullptr) return false;
      if (stored->size() != chunks_[c].compared.size() * sizeof(Position)) return false;
      found.push_back(values_of<Position>(*stored));
    }
    found_[c] = std::move(found);
    advance(static_cast<int64_t>(chunks_[c].compared.size()));
    return true;
  }

  // The chunk that is visited k-th, and those after it that are yet to be read.
  std::vector<const Chunk*> coming_from(size_t k) const {
    std::vector<const Chunk*> coming;
    for (size_t i = k; i < order_.size(); ++i) {
      if (i == k || !is_stored(order_[i])) coming.push_back(&chunks_[order_[i]]);
    }
    return coming;
  }

  void compute(ChunkReader& reader, size_t k) {
    reader.look_ahead(coming_from(k));
    const size_t c = order_[k];
    found_[c] =
        reader.read(chunks_[c], static_cast<int64_t>(c), [&](int64_t rows) { advance(rows); });
    if (hooks_.state == nullptr) return;
    static_assert(std::is_trivially_copyable_v<Position>);
    for (size_t p = 0; p < pairs(); ++p) {
      hooks_.state->add(record_name(p), static_cast<int64_t>(c),
                        std::as_bytes(std::span(found_[c][p])));
    }
  }

  bool is_stored(size_t c) const {
    if (hooks_.state == nullptr) return false;
    for (size_t p = 0; p < pairs(); ++p) {
      if (!hooks_.state->find(record_name(p), static_cast<int64_t>(c))) return false;
    }
    return true;
  }

  static std::string record_name(size_t pair) { return "pair " + std::to_string(pair); }

  bool is_precise() const {
    if (trackers_.front().chunks() < kFewestChunks) return false;
    return std::all_of(trackers_.begin(), trackers_.end(), [&](const MeanTracker& t) {
      return t.relative_half_width(options_.summary) <= options_.precision;
    });
  }

  void check_stop() const {
    if (hooks_.stop && hooks_.stop->load(std::memory_order_relaxed)) throw Interrupted();
  }

  void advance(int64_t rows) {
    progress_.done += rows;
    if (hooks_.progress) hooks_.progress(progress_);
    check_stop();
  }

  void update_progress() {
    if (!hooks_.progress || trackers_.front().chunks() < 2) return;
    progress_.relative_half_width = -1;
    SummaryOptions quick = options_.summary;
    quick.resamples = std::min<int64_t>(quick.resamples, 200);
    for (const MeanTracker& t : trackers_) {
      const double width = t.relative_half_width(quick);
      if (width <= progress_.relative_half_width) continue;
      progress_.relative_half_width = width;
      progress_.mean_kld = t.mean();
    }
    hooks_.progress(progress_);
  }

  void collect(AuditResult& result) {
    for (size_t c = 0; c < chunks_.size(); ++c) {
      if (!found_[c].empty()) result.finished.push_back(c);
    }
    for (size_t p = 0; p < pairs(); ++p) {
      PairResult pair;
      pair.reference = p / models_.candidates.size();
      pair.candidate = p % models_.candidates.size();
      for (const size_t c : result.finished) pair.positions.push_back(std::move(found_[c][p]));
      result.pairs.push_back(std::move(pair));
    }
  }

  const AuditModels& models_;
  std::span<const Chunk> chunks_;
  const AuditOptions& options_;
  ThreadPool& pool_;
  const AuditHooks& hooks_;
  std::vector<size_t> order_;
  std::vector<MeanTracker> trackers_;                      // [pairs]
  std::vector<std::vector<std::vector<Position>>> found_;  // [chunk][pair]
  AuditProgress progress_;
};

}  // namespace

std::vector<size_t> visiting_order(size_t n_chunks, const AuditOptions& options) {
  std::vector<size_t> order(n_chunks);
  std::iota(order.begin(), order.end(), size_t{0});
  if (options.precision <= 0) return order;
  Rng rng(options.summary.seed);
  for (size_t i = n_chunks; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  return order;
}

AuditResult run_audit(const AuditModels& models, std::span<const Chunk> chunks,
                      const AuditOptions& options, ThreadPool& pool, const AuditHooks& hooks) {
  CHECK(!chunks.empty());
  CHECK(!hooks.save || (!hooks.state && models.references.front().model));
  check_models(models, chunks);
  return Run(models, chunks, options, pool, hooks).run();
}

}  // namespace carat::audit
