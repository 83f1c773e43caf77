// An audit as one HTML page: tables and figures that are drawn here, no script, nothing loaded.
//
// The page is made from the JSON of report_json.h alone, so that saved audits can be shown later
// and several be joined. Audits are put into one table and one figure only if they were measured
// alike: against the same reference, over the same text, cut in the same way. What a document does
// not have is not drawn.
#pragma once

#include <span>
#include <string>

#include "base/json.h"

namespace carat::audit {

struct PageSource {
  std::string name;  // for errors; "audit.json"
  Json report;
};

// Everything that comes from the documents is escaped. Throws Error if one is no audit.
[[nodiscard]] std::string audit_page(std::span<const PageSource> sources);
[[nodiscard]] std::string audit_page(const Json& report);

}  // namespace carat::audit
