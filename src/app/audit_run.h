// What `carat audit` does between its command line and its report.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/command.h"
#include "audit/audit.h"
#include "audit/corpus.h"
#include "audit/report.h"

namespace carat::app {

struct AuditRequest {
  std::string reference;
  std::optional<std::string> second_reference;
  std::vector<std::string> candidates;
  std::vector<std::string> texts;  // "[DOMAIN=]FILE"
  std::vector<std::string> calibration;
  double max_overlap = 0.01;
  bool raw = false;
  audit::CorpusOptions corpus;
  audit::AuditOptions audit;
  std::optional<std::string> state;
  std::optional<std::string> save_reference;  // .kld or .carat-ref
  std::optional<std::string> html;  // the caller writes it; whether it may is seen before the work
  std::optional<int64_t> greedy_tokens;
  int64_t greedy_prompts = 32;
  std::optional<int64_t> memory;  // references are run layer by layer
  bool tensors = true;            // also measures what each tensor lost, if the reference has any
  bool asks_tensors = false;      // and it must
  std::string kv = "f32";
  int threads = 1;
};

// Nothing if calibration and test text overlap too much, which is said on standard error. Throws
// Error, UsageError, Interrupted.
[[nodiscard]] std::optional<audit::AuditReport> make_audit_report(const AuditRequest& request,
                                                                  const Environment& environment);

}  // namespace carat::app
