// Conversations as token ids, the way Gemma 4's chat template writes them.
//
//   <bos> [system turn] { turn } [generation prompt]
//   turn := <|turn> role \n body <turn|> \n           role: system, user, model
//
// The text is never rendered to a string and parsed again: markers are put as ids, and what people
// and tools wrote is encoded as plain text, so nothing in it can become a marker. Adjacent plain
// text goes through the tokenizer in one call; ids are therefore those of the rendered template.
//
// Where it departs from the template of 2026-07-09, on purpose:
//  * text beside tool calls stands before the calls, in the order in which the model wrote it (the
//    template puts it after the results, and then leaves the turn in a state that loops);
//  * a tool message that answers no call is an Error (the template drops it).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace carat::text {

// "assistant" is kModel, "developer" is kSystem.
enum class Role { kSystem, kUser, kModel, kTool };

// A piece of a message. Media stand as one placeholder token, which the engine widens.
struct Part {
  enum class Kind { kText, kImage, kAudio, kVideo };
  Kind kind = Kind::kText;
  std::string text;
};

struct ToolCall {
  std::string name;
  Json arguments = Json::object();  // an object
  std::string id;                   // by which a tool message names the call
};

struct Message {
  Role role = Role::kUser;
  std::vector<Part> content;
  std::string reasoning;             // kModel: the thought channel's text
  std::vector<ToolCall> tool_calls;  // kModel
  std::string tool_call_id;          // kTool: which call this answers
  std::string tool_name;             // kTool: the name to use if no call has that id
};

// A message of one text.
[[nodiscard]] Message text_message(Role role, std::string text);

struct Tool {
  std::string name;
  std::string description;
  Json parameters;  // JSON schema of an object, or null
  Json response;    // {description, type}, or null
};

struct ChatOptions {
  bool thinking = false;
  // The two templates differ in this: without thinking, prompts of the large family (no per-layer
  // embeddings: 12B, 26B-A4B, 31B) open an empty thought, those of the small one (E2B, E4B) do not.
  bool small_family = false;
  bool generation_prompt = true;
  // Keep thoughts of earlier turns that led to tool calls.
  bool preserve_thinking = false;
  std::vector<Tool> tools;
};

// Throws Error for a conversation that has no rendering, and for a vocabulary without the markers
// that it needs (see SpecialIds::has_turns).
[[nodiscard]] std::vector<int32_t> render_chat(const Tokenizer& tokenizer,
                                               std::span<const Message> messages,
                                               const ChatOptions& options = {});

// What one or more tokens of output mean.
struct OutputDelta {
  std::string content;    // valid UTF-8
  std::string reasoning;  // valid UTF-8
  // Calls that ended: the ids between <|tool_call> and <tool_call|>, markers inside kept.
  struct Call {
    std::vector<int32_t> ids;
    bool complete = true;  // false: the output ended, or another call began, before <tool_call|>
  };
  std::vector<Call> calls;
  bool stop = false;  // a stop token came; what follows it is ignored
};

// Divides a model's output into content, reasoning and tool calls, by token id: markers that the
// model merely spells out in plain text are content. Tolerates what models really emit: empty,
// repeated and doubled thought markers, stray closing markers, a call out of an unclosed thought.
// One newline before <channel|> belongs to the format and is left out.
class OutputParser {
 public:
  // Starts inside the thought channel if the prompt's end is. The tokenizer outlives the parser.
  OutputParser(const Tokenizer& tokenizer, std::span<const int32_t> prompt);

  [[nodiscard]] OutputDelta push(int32_t id);
  // The output is over: releases all that was kept back.
  [[nodiscard]] OutputDelta finish();

 private:
  enum class State { kContent, kLabel, kReasoning, kCall, kStopped };

  void marker(int32_t id, OutputDelta* delta);
  void text(std::string_view text, OutputDelta* delta);
  void label_text(std::string_view text, OutputDelta* delta);
  void content_text(std::string_view text, OutputDelta* delta);
  void reasoning_text(std::string_view text, OutputDelta* delta);
  void leave(OutputDelta* delta);
  void close_call(bool complete, OutputDelta* delta);

  const Tokenizer* tokenizer_;
  const SpecialIds& special_;
  StreamDecoder decoder_;
  State state_ = State::kContent;
  std::string held_;  // label so far, newline at a thought's end, or white space at content's end
  bool had_reasoning_ = false;
  bool new_thought_ = false;
  std::vector<int32_t> call_;
};

}  // namespace carat::text
