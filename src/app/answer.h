// One answer of a model, streamed as text.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generator.h"
#include "text/chat.h"

namespace carat::app {

struct Answer {
  std::string text;       // valid UTF-8
  std::string reasoning;  // valid UTF-8
  engine::GenerateResult result;
};

// Where the parts of an answer go as they come; members may be empty.
struct AnswerSink {
  std::function<void(std::string_view)> text;
  std::function<void(std::string_view)> reasoning;
  engine::ReadProgress reading;
};

// What an answer is made with.
struct Answerer {
  engine::Session& session;
  const text::Tokenizer& tokenizer;
  engine::SamplingOptions sampling;
  std::vector<int32_t> stop_ids;
  int64_t max_tokens = -1;
  const std::atomic<bool>* stop = nullptr;

  // Generates after `prompt`. With `chat`, thoughts and markers are told apart from the answer;
  // otherwise every token is text. Throws Error for a prompt that does not fit.
  Answer answer(const std::vector<int32_t>& prompt, bool chat, const AnswerSink& sink);
};

// "kStopToken" as people and scripts read it: "stop", "length", "context", "cancelled".
const char* stop_reason_name(engine::StopReason reason);

// "prompt 12 tokens, 310.2 tokens/s; answer 40 tokens, 52.1 tokens/s".
std::string timing_line(const engine::GenerateResult& result);
double prompt_speed(const engine::GenerateResult& result);  // tokens/s, 0 if nothing was read
double decode_speed(const engine::GenerateResult& result);

}  // namespace carat::app
