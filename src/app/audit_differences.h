// The terminal's table of candidates beside the closest one.
#pragma once

#include <cstddef>
#include <string>

#include "audit/report.h"

namespace carat::app {

// For every candidate but the one with the lowest mean KLD from that reference: how much further
// away it is, token by token, and whether that is certain. Lines of at most 100 columns, longer
// paths cut off in front. Empty for fewer than two candidates.
[[nodiscard]] std::string differences_text(const audit::AuditReport& report, size_t reference);

}  // namespace carat::app
