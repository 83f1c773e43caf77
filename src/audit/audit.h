// Fidelity: how far candidates' predictions are from a reference's, over the same tokens.
//
// The text is cut into chunks of at most `context` tokens, each beginning with <bos> and read
// afresh. Reference and candidates run side by side, a few positions at a time, so that no logits
// are kept; every position whose next token has at least `min_context` tokens before it is compared
// (audit/compare.h) and the figures are summed up with intervals over chunks (audit/statistics.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "audit/statistics.h"
#include "base/thread_pool.h"

namespace carat::audit {

// A model that predicts. Used by one thread at a time.
class LogitSource {
 public:
  virtual ~LogitSource() = default;
  virtual const std::string& name() const = 0;  // for messages
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_context() const = 0;
  // Forgets everything read so far.
  virtual void restart() = 0;
  // How many tokens to read at a time: their logits are held all at once.
  virtual int64_t step() const = 0;
  // Reads `tokens` after those already read and fills `logits` [tokens.size(), vocab_size()] with
  // what follows each of them.
  virtual void read(std::span<const int32_t> tokens, std::span<float> logits) = 0;
};

struct AuditOptions {
  int64_t context = 512;      // tokens a chunk, <bos> included
  int64_t min_context = 16;   // tokens before the first compared one, >= 1
  int64_t max_positions = 0;  // stop after the chunk that reaches so many; 0: the whole text
  SummaryOptions summary;
};

struct AuditResult {
  std::vector<Summary> candidates;  // in the order given
  // Largest KLD of the reference against itself read in steps of another size, over the first
  // chunk: what a figure below it would mean nothing against. carat's contract is 0.
  double noise_kld = 0;
};

// `done` and `total` count positions.
using AuditProgress = std::function<void(int64_t done, int64_t total)>;

// Chunks of `text`: <bos>, then up to context - 1 tokens; a last chunk too short to be compared
// anywhere is left out. REQUIRES: 1 <= min_context < context.
[[nodiscard]] std::vector<std::vector<int32_t>> cut_into_chunks(std::span<const int32_t> text,
                                                                int32_t bos,
                                                                const AuditOptions& options);

// Throws Error if a candidate's vocabulary has another size than the reference's, if the text is
// too short, if a context is longer than a model's, or if logits are not finite; Interrupted if
// `stop` is set. `stop` may be null, `progress` empty.
[[nodiscard]] AuditResult run_audit(LogitSource& reference,
                                    std::span<LogitSource* const> candidates,
                                    std::span<const int32_t> text, int32_t bos,
                                    const AuditOptions& options, ThreadPool& pool,
                                    const AuditProgress& progress, const std::atomic<bool>* stop);

}  // namespace carat::audit
