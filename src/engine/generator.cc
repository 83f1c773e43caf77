#include "engine/generator.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/seconds.h"

namespace carat::engine {
namespace {

using Clock = std::chrono::steady_clock;

bool is_set(const std::atomic<bool>* flag) {
  return flag != nullptr && flag->load(std::memory_order_relaxed);
}

}  // namespace

GenerateResult generate(Session& session, const GenerateRequest& request) {
  if (request.tokens.empty()) throw Error("the prompt is empty");
  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(request.tokens.size());
  session.require_room(result.prompt_tokens);
  Sampler sampler(request.sampling, session.vocab_size());

  result.reused_tokens = session.start(request.tokens);
  Clock::time_point start = Clock::now();
  std::span<const float> logits;
  try {
    logits = session.read(request.tokens.subspan(static_cast<size_t>(result.reused_tokens)),
                          request.on_prompt, request.cancel);
  } catch (const Interrupted&) {
    result.reason = StopReason::kCancelled;
    result.prompt_seconds = seconds_since(start);
    return result;
  }
  result.prompt_seconds = seconds_since(start);

  start = Clock::now();
  std::vector<int32_t> sequence(request.tokens.begin(), request.tokens.end());
  const auto finish = [&](StopReason reason) {
    result.reason = reason;
    result.decode_seconds = seconds_since(start);
    return result;
  };
  while (request.max_tokens < 0 ||
         static_cast<int64_t>(result.tokens.size()) < request.max_tokens) {
    if (is_set(request.cancel)) return finish(StopReason::kCancelled);
    const int32_t token = sampler.sample(logits, sequence);
    if (std::find(request.stop_ids.begin(), request.stop_ids.end(), token) !=
        request.stop_ids.end()) {
      result.stop_token = token;
      return finish(StopReason::kStopToken);
    }
    result.tokens.push_back(token);
    sequence.push_back(token);
    if (request.on_token && !request.on_token(token)) return finish(StopReason::kCaller);
    if (static_cast<int64_t>(result.tokens.size()) == request.max_tokens) break;
    if (session.length() >= session.capacity()) return finish(StopReason::kContext);
    logits = session.read(std::span(&token, 1));
    ++result.decode_steps;
  }
  return finish(StopReason::kMaxTokens);
}

}  // namespace carat::engine
