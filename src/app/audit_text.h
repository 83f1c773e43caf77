// The text of `carat audit`, before any weights are loaded: what is read, in which form, and
// whether it is disjoint from what a candidate was calibrated on.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/audit_run.h"
#include "audit/overlap.h"
#include "text/tokenizer.h"

namespace carat::app {

struct AuditText {
  std::shared_ptr<const text::Tokenizer> tokenizer;  // of the model at `from`
  bool chat = false;                                 // plain text is put into the template
  audit::Corpus corpus;
  std::optional<audit::Overlap> overlap;  // with --calibration
};

// `from`: the model whose tokenizer and template are used. Throws Error.
[[nodiscard]] AuditText read_audit_text(const AuditRequest& request, const std::string& from);

// The tokenizer alone, for a stored reference, which brings its own tokens.
[[nodiscard]] std::shared_ptr<const text::Tokenizer> audit_tokenizer(const std::string& from);

}  // namespace carat::app
