// An audit's report for the terminal.
#pragma once

#include "audit/report.h"

namespace carat::app {

// What was compared and how, then one row for every candidate, to standard output; what makes the
// figures less than they seem, to standard error.
void print_audit(const audit::AuditReport& report);

}  // namespace carat::app
