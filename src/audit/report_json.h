// An audit's report as JSON. docs/audit-schema.json is its schema.
#pragma once

#include "audit/report.h"
#include "base/json.h"

namespace carat::audit {

// Figures in nats and shares; an interval is [low, high], or null where the sample is too small
// for one. "candidates" has an entry for every candidate and reference. A single one's figures
// stand at the top level too, for scripts that want one number.
[[nodiscard]] Json report_json(const AuditReport& report);

}  // namespace carat::audit
