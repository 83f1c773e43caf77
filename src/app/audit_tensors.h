// What each tensor of the candidates lost, for the report of an audit.
#pragma once

#include <atomic>
#include <vector>

#include "app/audit_inputs.h"
#include "audit/report.h"
#include "base/thread_pool.h"

namespace carat::app {

// Fills Comparison::tensors of every candidate that has the tensors of its reference, reading both
// files piece by piece. The others get none, which is said on standard error; nor does a candidate
// that is the reference's own file. `references` and `candidates` are those of the report, in
// order. Throws Error, Interrupted.
void add_tensor_errors(const std::vector<ModelSpec>& references,
                       const std::vector<ModelSpec>& candidates, audit::AuditReport& report,
                       ThreadPool& pool, const std::atomic<bool>* stop);

}  // namespace carat::app
