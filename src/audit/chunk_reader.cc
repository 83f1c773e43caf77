#include "audit/chunk_reader.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace carat::audit {

ChunkReader::ChunkReader(const AuditModels& models, ThreadPool& pool, TeacherWriter* save)
    : models_(models), pool_(pool), save_(save) {
  bool any_stored = false;
  for (const Reference& r : models.references) {
    references_.push_back(r.model ? running_index(r.model) : 0);
    any_stored = any_stored || r.stored;
  }
  for (LogitSource* c : models.candidates) candidates_.push_back(running_index(c));
  vocab_ = static_cast<size_t>(running_.front().source->vocab_size());
  rows_ = running_.front().source->rows_at_once();
  for (Running& r : running_) r.logits.resize(static_cast<size_t>(rows_) * vocab_);
  if (any_stored) scratch_.assign(static_cast<size_t>(pool.size()), std::vector<float>(vocab_));
}

size_t ChunkReader::running_index(LogitSource* source) {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (running_[i].source == source) return i;
  }
  running_.push_back({source, {}});
  return running_.size() - 1;
}

void ChunkReader::look_ahead(std::span<const Chunk* const> coming) {
  for (const Running& r : running_) r.source->look_ahead(coming);
}

std::vector<std::vector<Position>> ChunkReader::read(const Chunk& chunk, int64_t index,
                                                     const std::function<void(int64_t)>& advance) {
  const size_t n = chunk.compared.size();
  const size_t pairs = models_.references.size() * models_.candidates.size();
  std::vector<std::vector<Position>> out(pairs, std::vector<Position>(n));
  // The last token is only predicted.
  const auto read = std::span(chunk.tokens).first(chunk.tokens.size() - 1);
  for (const Running& r : running_) r.source->start(read);
  for (size_t r = 0; r < models_.references.size(); ++r) {
    StoredTeacher* stored = models_.references[r].stored;
    if (stored == nullptr) continue;
    stored->select(index);
  }
  for (size_t first = 0; first < n; first += static_cast<size_t>(rows_)) {
    const size_t count = std::min(static_cast<size_t>(rows_), n - first);
    const auto rows = std::span(chunk.compared).subspan(first, count);
    for (Running& r : running_) r.source->read(rows, std::span(r.logits).first(count * vocab_));
    if (save_) save_->add(std::span(running_[references_[0]].logits).first(count * vocab_), pool_);
    compare(chunk, rows, first, out);
    advance(static_cast<int64_t>(count));
  }
  for (size_t p = 0; p < pairs; ++p) {
    check_finite(out[p], p / models_.candidates.size(), p % models_.candidates.size());
  }
  return out;
}

void ChunkReader::compare(const Chunk& chunk, std::span<const int32_t> rows, size_t first,
                          std::vector<std::vector<Position>>& out) {
  const size_t n_candidates = models_.candidates.size();
  const auto n = static_cast<int64_t>(rows.size() * out.size());
  pool_.parallel_for(n, 1, [&](int64_t from, int64_t to, int thread) {
    for (int64_t k = from; k < to; ++k) {
      const size_t i = static_cast<size_t>(k) / out.size();
      const size_t pair = static_cast<size_t>(k) % out.size();
      const size_t reference = pair / n_candidates;
      const auto given = row(candidates_[pair % n_candidates], i);
      if (const StoredTeacher* stored = models_.references[reference].stored) {
        out[pair][first + i] = compare_stored(*stored, chunk, static_cast<int64_t>(first + i),
                                              given, scratch_[static_cast<size_t>(thread)])
                                   .position;
      } else {
        const auto next = chunk.tokens[static_cast<size_t>(rows[i]) + 1];
        out[pair][first + i] = compare_position(row(references_[reference], i), given, next);
      }
      out[pair][first + i].index = rows[i] + 1;
    }
  });
}

void ChunkReader::check_finite(const std::vector<Position>& positions, size_t reference,
                               size_t candidate) const {
  for (const Position& p : positions) {
    if (std::isfinite(p.kld) && std::isfinite(p.candidate_nll)) continue;
    const Reference& r = models_.references[reference];
    const bool own = !std::isfinite(p.reference_nll);
    const std::string& of_reference = r.model ? r.model->name() : r.stored->path();
    throw Error({"the model computes logits that are not finite numbers",
                 own ? of_reference : models_.candidates[candidate]->name(),
                 {},
                 {},
                 {},
                 "the weights may be damaged"});
  }
}

}  // namespace carat::audit
