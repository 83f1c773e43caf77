#include "audit/audit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace carat::audit {
namespace {

void check_models(const LogitSource& reference, std::span<LogitSource* const> candidates,
                  const AuditOptions& options) {
  for (const LogitSource* candidate : candidates) {
    if (candidate->vocab_size() != reference.vocab_size()) {
      throw Error({"the vocabulary differs from the reference's",
                   candidate->name(),
                   {},
                   std::to_string(reference.vocab_size()) + " tokens",
                   std::to_string(candidate->vocab_size()) + " tokens",
                   "only models that share a tokenizer can be compared"});
    }
  }
  const auto check_context = [&](const LogitSource& model) {
    if (options.context > model.max_context()) {
      throw Error({"the context asked for is longer than the model's",
                   model.name(),
                   "--context",
                   "at most " + std::to_string(model.max_context()),
                   std::to_string(options.context),
                   {}});
    }
  };
  check_context(reference);
  for (const LogitSource* candidate : candidates) check_context(*candidate);
}

// One chunk being read by the reference and everyone compared with it.
class ChunkReader {
 public:
  ChunkReader(LogitSource& reference, std::span<LogitSource* const> others, int64_t step,
              ThreadPool& pool)
      : reference_(reference), others_(others), step_(step), pool_(pool) {
    const auto floats = static_cast<size_t>(step * reference.vocab_size());
    expected_.resize(floats);
    given_.resize(floats);
  }

  // Positions of `chunk` from `first` on, for each of the others. `advance` is told how many were
  // read after each step.
  std::vector<std::vector<Position>> read(std::span<const int32_t> chunk, int64_t first,
                                          const std::function<void(int64_t)>& advance) {
    const auto n = static_cast<int64_t>(chunk.size()) - 1;  // the last token is only predicted
    std::vector<std::vector<Position>> positions(others_.size(),
                                                 std::vector<Position>(static_cast<size_t>(n)));
    reference_.restart();
    for (LogitSource* other : others_) other->restart();
    for (int64_t begin = 0; begin < n; begin += step_) {
      const int64_t rows = std::min(step_, n - begin);
      const auto tokens = chunk.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows));
      const auto floats = static_cast<size_t>(rows * reference_.vocab_size());
      reference_.read(tokens, std::span(expected_).first(floats));
      for (size_t m = 0; m < others_.size(); ++m) {
        others_[m]->read(tokens, std::span(given_).first(floats));
        compare(chunk, begin, rows, positions[m]);
      }
      advance(rows);
    }
    for (size_t m = 0; m < others_.size(); ++m) {
      check_finite(positions[m], *others_[m]);
      positions[m].erase(positions[m].begin(), positions[m].begin() + first);
    }
    return positions;
  }

 private:
  void compare(std::span<const int32_t> chunk, int64_t begin, int64_t rows,
               std::vector<Position>& out) {
    const auto vocab = static_cast<size_t>(reference_.vocab_size());
    pool_.parallel_for(rows, 1, [&](int64_t from, int64_t to, int) {
      for (int64_t r = from; r < to; ++r) {
        const auto i = static_cast<size_t>(begin + r);
        const size_t at = static_cast<size_t>(r) * vocab;
        out[i] = compare_position(std::span(expected_).subspan(at, vocab),
                                  std::span(given_).subspan(at, vocab), chunk[i + 1]);
      }
    });
  }

  void check_finite(const std::vector<Position>& positions, const LogitSource& other) const {
    for (const Position& p : positions) {
      if (std::isfinite(p.kld) && std::isfinite(p.candidate_nll)) continue;
      const bool own = !std::isfinite(p.reference_nll);
      throw Error({"the model computes logits that are not finite numbers",
                   own ? reference_.name() : other.name(),
                   {},
                   {},
                   {},
                   "the weights may be damaged"});
    }
  }

  LogitSource& reference_;
  std::span<LogitSource* const> others_;
  int64_t step_;
  ThreadPool& pool_;
  std::vector<float> expected_, given_;  // [step, vocab]
};

// A source read twice must be two sources: this replays the reference in steps of its own.
double measure_noise(LogitSource& reference, std::span<const int32_t> chunk, ThreadPool& pool) {
  const auto vocab = static_cast<size_t>(reference.vocab_size());
  const int64_t whole = reference.step();
  const int64_t small = std::clamp<int64_t>(whole / 2 - 1, 1, 7);
  // As many positions as fit one whole step, so that the first reading can be kept.
  const auto n =
      static_cast<size_t>(std::min<int64_t>(whole, static_cast<int64_t>(chunk.size()) - 1));
  std::vector<float> first(n * vocab), second(n * vocab);
  reference.restart();
  reference.read(chunk.first(n), first);
  reference.restart();
  for (size_t begin = 0; begin < n; begin += static_cast<size_t>(small)) {
    const size_t rows = std::min(static_cast<size_t>(small), n - begin);
    reference.read(chunk.subspan(begin, rows),
                   std::span(second).subspan(begin * vocab, rows * vocab));
  }
  std::vector<double> kld(n);
  pool.parallel_for(static_cast<int64_t>(n), 1, [&](int64_t from, int64_t to, int) {
    for (auto i = static_cast<size_t>(from); i < static_cast<size_t>(to); ++i) {
      kld[i] = compare_position(std::span(first).subspan(i * vocab, vocab),
                                std::span(second).subspan(i * vocab, vocab), chunk[i + 1])
                   .kld;
    }
  });
  return *std::max_element(kld.begin(), kld.end());
}

}  // namespace

std::vector<std::vector<int32_t>> cut_into_chunks(std::span<const int32_t> text, int32_t bos,
                                                  const AuditOptions& options) {
  CHECK(1 <= options.min_context && options.min_context < options.context);
  std::vector<std::vector<int32_t>> chunks;
  const auto most = static_cast<size_t>(options.context - 1);
  int64_t positions = 0;
  for (size_t begin = 0; begin < text.size(); begin += most) {
    const size_t n = std::min(most, text.size() - begin);
    if (static_cast<int64_t>(n) < options.min_context) break;
    std::vector<int32_t> chunk = {bos};
    chunk.insert(chunk.end(), text.begin() + static_cast<std::ptrdiff_t>(begin),
                 text.begin() + static_cast<std::ptrdiff_t>(begin + n));
    chunks.push_back(std::move(chunk));
    positions += static_cast<int64_t>(n) - options.min_context + 1;
    if (options.max_positions > 0 && positions >= options.max_positions) break;
  }
  return chunks;
}

AuditResult run_audit(LogitSource& reference, std::span<LogitSource* const> candidates,
                      std::span<const int32_t> text, int32_t bos, const AuditOptions& options,
                      ThreadPool& pool, const AuditProgress& progress,
                      const std::atomic<bool>* stop) {
  check_models(reference, candidates, options);
  const auto chunks = cut_into_chunks(text, bos, options);
  if (chunks.empty()) {
    throw Error({"the text is too short to compare anything",
                 {},
                 {},
                 "at least " + std::to_string(options.min_context) + " tokens",
                 std::to_string(text.size()) + " tokens",
                 {}});
  }
  int64_t total = 0;
  for (const auto& chunk : chunks) total += static_cast<int64_t>(chunk.size()) - 1;
  int64_t done = 0;
  const auto advance = [&](int64_t rows) {
    done += rows;
    if (progress) progress(done, total);
    if (stop && stop->load(std::memory_order_relaxed)) throw Interrupted();
  };

  AuditResult result;
  result.noise_kld = measure_noise(reference, chunks.front(), pool);
  std::vector<std::vector<std::vector<Position>>> positions(candidates.size());
  ChunkReader reader(reference, candidates, reference.step(), pool);
  for (const auto& chunk : chunks) {
    auto of_chunk = reader.read(chunk, options.min_context - 1, advance);
    for (size_t m = 0; m < candidates.size(); ++m) {
      positions[m].push_back(std::move(of_chunk[m]));
    }
  }
  for (const auto& of_candidate : positions) {
    result.candidates.push_back(summarize(of_candidate, options.summary));
  }
  return result;
}

}  // namespace carat::audit
