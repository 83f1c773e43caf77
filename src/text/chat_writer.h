// Collects a prompt's ids: markers as ids, plain text joined before it is encoded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace carat::text {

class ChatWriter {
 public:
  explicit ChatWriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void text(std::string_view text) { pending_ += text; }
  // Throws Error if the vocabulary lacks the marker.
  void marker(int32_t SpecialIds::*which);
  [[nodiscard]] std::vector<int32_t> take();

 private:
  void flush();
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::string pending_;
};

// What Python's str.strip() removes, from both ends.
[[nodiscard]] std::string_view trim(std::string_view text);

// The mini-language of tools: <|tool>declaration:...<tool|>, <|tool_call>call:...<tool_call|> and
// <|tool_response>response:...<tool_response|>.
void write_declaration(const Tool& tool, ChatWriter* out);
void write_call(const ToolCall& call, ChatWriter* out);
void write_response(std::string_view name, std::string_view text, ChatWriter* out);

}  // namespace carat::text
