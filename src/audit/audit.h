// Fidelity: how far candidates' predictions are from a reference's, over the same tokens.
//
// References and candidates run side by side over the same chunks of text (audit/corpus.h), a few
// positions at a time, so that no logits are kept; every position that a chunk names is compared
// (audit/compare.h) and the figures are summed up with intervals over chunks (audit/statistics.h).
//
// Chunks are visited in the order of the text, or, if the audit may end early, in an order drawn by
// the seed: what was read is then a sample of the whole text. Figures do not depend on the order in
// which finished chunks were visited, nor on the number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/corpus.h"
#include "audit/logit_source.h"
#include "audit/statistics.h"
#include "audit/teacher_store.h"
#include "base/thread_pool.h"

namespace carat::audit {

class AuditState;

// A model that runs, or one whose predictions were stored: one of the two. A stored one knows the
// chunks of its file, in order, and no others.
struct Reference {
  LogitSource* model = nullptr;
  StoredTeacher* stored = nullptr;
};

struct AuditModels {
  std::vector<Reference> references;  // one or two
  // May contain a reference's source: it is run once.
  std::vector<LogitSource*> candidates;
  // The first reference computed in other ways (other steps, other threads), for the noise floor.
  std::vector<LogitSource*> again;
};

struct AuditOptions {
  // Ends when half the width of every mean KLD's interval is at most this share of the mean, but
  // not before kFewestChunks. 0: reads everything.
  double precision = 0;
  SummaryOptions summary;  // its seed orders the chunks too
};
inline constexpr int64_t kFewestChunks = 10;

// How far an audit is.
struct AuditProgress {
  int64_t done = 0, total = 0;  // positions
  // Of the candidate whose mean KLD is known least well, once there are two chunks.
  std::optional<double> mean_kld;
  double relative_half_width = 0;
};

struct AuditHooks {
  AuditState* state = nullptr;  // finished chunks are taken from it and added to it
  std::function<void(const AuditProgress&)> progress;
  const std::atomic<bool>* stop = nullptr;
  // Given the first reference's logits; its plan holds the chunks in visiting_order. The caller
  // commits. Not with a state, whose finished chunks are not run again, nor a stored reference.
  TeacherWriter* save = nullptr;
};

// One candidate against one reference.
struct PairResult {
  size_t reference = 0, candidate = 0;
  std::vector<std::vector<Position>> positions;  // of each finished chunk
};

struct AuditResult {
  std::vector<size_t> finished;   // indices of the chunks read, ascending
  std::vector<PairResult> pairs;  // all candidates against the first reference, then the second
  // Largest KLD of the first reference against each of AuditModels::again, over the start of the
  // first chunk: what a figure below it would mean nothing against. carat's contract is 0. Empty if
  // the reference is stored.
  std::vector<double> noise_kld;
  // Whether the precision asked for was reached; nothing if none was.
  std::optional<bool> precise;
};

// Throws Error if a candidate's vocabulary has another size than the reference's, if a chunk is
// longer than a model's context, or if logits are not finite; Interrupted if hooks.stop is set.
// REQUIRES: at least one chunk, each with positions to compare.
[[nodiscard]] AuditResult run_audit(const AuditModels& models, std::span<const Chunk> chunks,
                                    const AuditOptions& options, ThreadPool& pool,
                                    const AuditHooks& hooks = {});

// The order in which chunks are visited.
[[nodiscard]] std::vector<size_t> visiting_order(size_t n_chunks, const AuditOptions& options);

}  // namespace carat::audit
