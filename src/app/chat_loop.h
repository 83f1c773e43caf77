// Talking to a model in the terminal.
#pragma once

#include <string>

#include "app/answer.h"

namespace carat::app {

struct ChatSettings {
  bool chat = true;    // false: the model continues what is typed
  std::string system;  // system turn; empty: none
  text::ChatOptions render;
  bool show_timing = false;
};

// The ids of a prompt that is to be continued as it is.
[[nodiscard]] std::vector<int32_t> plain_prompt(const text::Tokenizer& tokenizer,
                                                const std::string& prompt);
// The ids of a conversation of one user turn, and a system turn unless `system` is empty.
[[nodiscard]] std::vector<int32_t> chat_prompt(const text::Tokenizer& tokenizer,
                                               const std::string& prompt,
                                               const ChatSettings& settings);

// Prints an answer to standard output as it comes, thoughts dimmed to standard error, and ends the
// line.
Answer stream_answer(Answerer& answerer, const std::vector<int32_t>& prompt, bool chat);

// Reads turns from the terminal until its end or /exit. Ctrl-C stops an answer; at the prompt it
// throws Interrupted. Errors of a turn (it does not fit) are told and the chat goes on.
void chat_loop(Answerer& answerer, const ChatSettings& settings);

}  // namespace carat::app
