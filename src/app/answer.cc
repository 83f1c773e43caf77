#include "app/answer.h"

#include <fmt/format.h>

#include <optional>

namespace carat::app {
namespace {

// Hands a part on and keeps it.
void pass(const std::string& part, const std::function<void(std::string_view)>& to,
          std::string& all) {
  if (part.empty()) return;
  all += part;
  if (to) to(part);
}

}  // namespace

Answer Answerer::answer(const std::vector<int32_t>& prompt, bool chat, const AnswerSink& sink) {
  Answer answer;
  std::optional<text::OutputParser> parser;
  if (chat) parser.emplace(tokenizer, prompt);
  text::StreamDecoder decoder(tokenizer);
  const auto take = [&](const text::OutputDelta& delta) {
    pass(delta.reasoning, sink.reasoning, answer.reasoning);
    pass(delta.content, sink.text, answer.text);
  };
  engine::GenerateRequest request;
  request.tokens = prompt;
  request.max_tokens = max_tokens;
  request.sampling = sampling;
  request.stop_ids = stop_ids;
  request.cancel = stop;
  request.on_prompt = sink.reading;
  request.on_token = [&](int32_t token) {
    if (parser) {
      const text::OutputDelta delta = parser->push(token);
      take(delta);
      return !delta.stop;
    }
    pass(decoder.push(token), sink.text, answer.text);
    return true;
  };
  answer.result = engine::generate(session, request);
  if (parser) {
    take(parser->finish());
  } else {
    pass(decoder.finish(), sink.text, answer.text);
  }
  return answer;
}

const char* stop_reason_name(engine::StopReason reason) {
  switch (reason) {
    case engine::StopReason::kStopToken:
    case engine::StopReason::kCaller:
      return "stop";
    case engine::StopReason::kMaxTokens:
      return "length";
    case engine::StopReason::kContext:
      return "context";
    case engine::StopReason::kCancelled:
      return "cancelled";
  }
  return "";
}

double prompt_speed(const engine::GenerateResult& r) {
  const auto read = static_cast<double>(r.prompt_tokens - r.reused_tokens);
  return r.prompt_seconds > 0 ? read / r.prompt_seconds : 0;
}

double decode_speed(const engine::GenerateResult& r) {
  return r.decode_seconds > 0 ? static_cast<double>(r.decode_steps) / r.decode_seconds : 0;
}

std::string timing_line(const engine::GenerateResult& r) {
  std::string line = fmt::format("prompt {} tokens", r.prompt_tokens);
  if (r.reused_tokens > 0) line += fmt::format(" ({} known)", r.reused_tokens);
  line += fmt::format(", {:.1f} tokens/s; answer {} tokens", prompt_speed(r), r.tokens.size());
  if (r.decode_steps > 0) line += fmt::format(", {:.1f} tokens/s", decode_speed(r));
  return line;
}

}  // namespace carat::app
