// Lines of a .jsonl file of conversations or texts. Internal to corpus.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace carat::audit {

// A line: one of the two is empty.
struct Document {
  std::string text;
  std::vector<text::Message> messages;
};

// Throws Error with the line as its place.
[[nodiscard]] std::vector<Document> parse_documents(std::string_view jsonl);

}  // namespace carat::audit
