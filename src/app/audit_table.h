// An audit's report for the terminal.
#pragma once

#include <cstdint>

#include "audit/report.h"

namespace carat::app {

// What was compared and how, then one row for every candidate, then the `tensors` ones of each that
// lost most, to standard output; what makes the figures less than they seem, to standard error.
void print_audit(const audit::AuditReport& report, int64_t tensors = 0);

}  // namespace carat::app
