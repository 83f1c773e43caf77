// Continues a sequence of tokens: reads the prompt, then samples one token after another.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "engine/session.h"

namespace carat::engine {

enum class StopReason : uint8_t {
  kStopToken,  // the model ended its turn
  kMaxTokens,
  kContext,    // context or memory is full
  kCaller,     // on_token returned false
  kCancelled,  // the flag was set
};

struct GenerateRequest {
  // The whole sequence so far, <bos> included. What the session has in memory of it is not read
  // again (Session::start).
  std::span<const int32_t> tokens;
  int64_t max_tokens = -1;  // < 0: until the model stops or the context is full
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;
  const std::atomic<bool>* cancel = nullptr;
  ReadProgress on_prompt;
  // Called with every token as it is sampled, a final stop token excepted; false ends.
  std::function<bool(int32_t token)> on_token;
};

struct GenerateResult {
  std::vector<int32_t> tokens;  // without the stop token
  StopReason reason = StopReason::kMaxTokens;
  int32_t stop_token = -1;    // kStopToken: which
  int64_t prompt_tokens = 0;  // of the request
  int64_t reused_tokens = 0;  // of those, not read again
  double prompt_seconds = 0, decode_seconds = 0;
  int64_t decode_steps = 0;  // forward passes after the prompt's
};

// Checks the prompt against vocabulary, context and memory and throws Error before any work. The
// sampled tokens stay in the session's history, except the last one, which was not read.
GenerateResult generate(Session& session, const GenerateRequest& request);

}  // namespace carat::engine
