#include "engine/generator.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/testing/random_model.h"

namespace carat::engine {
namespace {

model::Model random_model(const char* size) {
  model::Model m;
  m.weights =
      model::testing::random_weights(model::config_of_size(size), DType::kQ4_0, DType::kQ6_K);
  return m;
}

std::vector<int32_t> some_tokens(int64_t n) {
  Rng rng(5);
  std::vector<int32_t> t = {2};
  while (static_cast<int64_t>(t.size()) < n) t.push_back(static_cast<int32_t>(rng.below(512)));
  return t;
}

class Generate : public ::testing::Test {
 protected:
  model::Model model_ = random_model("tiny");
  ThreadPool pool_{2};
  kernels::CpuOps ops_{pool_};

  GenerateRequest request(const std::vector<int32_t>& tokens, int64_t max_tokens) {
    GenerateRequest r;
    r.tokens = tokens;
    r.max_tokens = max_tokens;
    r.sampling.seed = 9;
    return r;
  }
};

TEST_F(Generate, ChunksChangeNothing) {
  const std::vector<int32_t> prompt = some_tokens(100);
  std::vector<int32_t> expected;
  for (const int64_t chunk : {512, 64, 7, 1}) {
    SessionOptions o;
    o.chunk = chunk;
    Session session(model_, ops_, o);
    const GenerateResult r = generate(session, request(prompt, 30));
    EXPECT_EQ(r.reason, StopReason::kMaxTokens);
    EXPECT_EQ(r.tokens.size(), 30u);
    EXPECT_EQ(r.prompt_tokens, 100);
    EXPECT_EQ(r.decode_steps, 29);
    if (expected.empty()) expected = r.tokens;
    EXPECT_EQ(r.tokens, expected) << chunk;
  }
}

TEST_F(Generate, ContinuesWhereItsHistoryFits) {
  Session session(model_, ops_, {});
  std::vector<int32_t> tokens = some_tokens(50);
  const GenerateResult first = generate(session, request(tokens, 10));
  tokens.insert(tokens.end(), first.tokens.begin(), first.tokens.end());
  tokens.push_back(106);
  tokens.push_back(7);
  const GenerateResult second = generate(session, request(tokens, 10));
  EXPECT_EQ(second.reused_tokens, 59);  // the last sampled token was not read
  Session fresh(model_, ops_, {});
  EXPECT_EQ(generate(fresh, request(tokens, 10)).tokens, second.tokens);
  // Another beginning: read anew, same answer as a fresh session.
  tokens[3] ^= 1;
  const GenerateResult third = generate(session, request(tokens, 10));
  EXPECT_EQ(third.reused_tokens, 3);
  fresh.clear();
  EXPECT_EQ(generate(fresh, request(tokens, 10)).tokens, third.tokens);
}

TEST_F(Generate, GoesBackWhereTheConversationParts) {
  Session session(model_, ops_, {});
  const std::vector<int32_t> first = some_tokens(400);
  const GenerateResult answer = generate(session, request(first, 40));
  // The answer comes back changed, as when its thoughts are dropped.
  std::vector<int32_t> second = first;
  second.insert(second.end(), answer.tokens.begin() + 20, answer.tokens.end());
  second.push_back(7);
  const GenerateResult next = generate(session, request(second, 10));
  EXPECT_GE(next.reused_tokens, 399);
  Session fresh(model_, ops_, {});
  EXPECT_EQ(generate(fresh, request(second, 10)).tokens, next.tokens);
  // Another conversation, and back to the first one.
  std::vector<int32_t> other = {5, 6, 7, 8};
  (void)generate(session, request(other, 3));
  const GenerateResult again = generate(session, request(first, 40));
  EXPECT_EQ(again.reused_tokens, 399);
  EXPECT_EQ(again.tokens, answer.tokens);
  session.clear();
  EXPECT_EQ(session.kv_bytes_in_use(), 0);
}

TEST_F(Generate, StopsAtAStopToken) {
  Session session(model_, ops_, {});
  const std::vector<int32_t> prompt = some_tokens(20);
  const std::vector<int32_t> all = generate(session, request(prompt, 20)).tokens;
  GenerateRequest r = request(prompt, 20);
  r.stop_ids = {all[12]};
  const GenerateResult stopped = generate(session, r);
  EXPECT_EQ(stopped.reason, StopReason::kStopToken);
  EXPECT_EQ(stopped.stop_token, all[12]);
  const auto end = std::find(all.begin(), all.end(), all[12]);
  EXPECT_EQ(stopped.tokens, std::vector<int32_t>(all.begin(), end));
}

TEST_F(Generate, StreamsTokensAndProgress) {
  SessionOptions o;
  o.chunk = 8;
  Session session(model_, ops_, o);
  const std::vector<int32_t> prompt = some_tokens(20);
  GenerateRequest r = request(prompt, 20);
  std::vector<int64_t> done;
  std::vector<int32_t> streamed;
  r.on_prompt = [&](int64_t n, int64_t total) {
    EXPECT_EQ(total, 20);
    done.push_back(n);
  };
  r.on_token = [&](int32_t t) {
    streamed.push_back(t);
    return streamed.size() < 5;
  };
  const GenerateResult result = generate(session, r);
  EXPECT_EQ(result.reason, StopReason::kCaller);
  EXPECT_EQ(streamed, result.tokens);
  EXPECT_EQ(streamed.size(), 5u);
  EXPECT_EQ(done, (std::vector<int64_t>{7, 14, 20}));  // chunks of equal size
}

TEST_F(Generate, CancelEndsBetweenChunks) {
  SessionOptions o;
  o.chunk = 8;
  Session session(model_, ops_, o);
  const std::vector<int32_t> prompt = some_tokens(40);
  std::atomic<bool> cancel = false;
  GenerateRequest r = request(prompt, 20);
  r.cancel = &cancel;
  r.on_prompt = [&](int64_t n, int64_t) { cancel = n >= 16; };
  EXPECT_EQ(generate(session, r).reason, StopReason::kCancelled);
  EXPECT_EQ(session.length(), 16);
}

TEST_F(Generate, RefusesBeforeWork) {
  SessionOptions o;
  o.context = 64;
  Session session(model_, ops_, o);
  const auto error = [&](const std::vector<int32_t>& tokens) -> std::string {
    try {
      (void)generate(session, request(tokens, 5));
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  };
  EXPECT_NE(error(some_tokens(65)).find("longer than the context"), std::string::npos);
  EXPECT_NE(error({2, 512}).find("no such token"), std::string::npos);
  EXPECT_NE(error({2, -1}).find("no such token"), std::string::npos);
  EXPECT_NE(error({}).find("empty"), std::string::npos);
  EXPECT_EQ(session.length(), 0);
  EXPECT_EQ(error(some_tokens(64)), "");

  o.context = 4097;
  EXPECT_THROW(Session(model_, ops_, o), Error);
  o.context = 0;
  o.chunk = 0;
  EXPECT_THROW(Session(model_, ops_, o), Error);
}

TEST_F(Generate, ContextEndsTheAnswer) {
  SessionOptions o;
  o.context = 64;
  Session session(model_, ops_, o);
  const std::vector<int32_t> prompt = some_tokens(60);
  const GenerateResult r = generate(session, request(prompt, -1));
  EXPECT_EQ(r.reason, StopReason::kContext);
  EXPECT_EQ(r.tokens.size(), 5u);  // four are read, the fifth comes from the last logits
  EXPECT_EQ(session.length(), 64);
}

TEST_F(Generate, MemoryLimitsTheContext) {
  SessionOptions o;
  o.chunk = 64;
  o.kv_budget = model::kv_bytes(model_.config(), o.kv, 256, 64);
  Session session(model_, ops_, o);
  EXPECT_EQ(session.capacity(), 256);
  try {
    (void)generate(session, request(some_tokens(300), 5));
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("more memory"), std::string::npos);
  }
  const std::vector<int32_t> prompt = some_tokens(250);
  EXPECT_EQ(generate(session, request(prompt, -1)).reason, StopReason::kContext);
  EXPECT_LE(session.kv_bytes_in_use(), o.kv_budget);
}

TEST_F(Generate, AllRowsAreTheRowsOfSingleReads) {
  SessionOptions o;
  o.chunk = 7;
  Session session(model_, ops_, o), single(model_, ops_, {});
  const std::vector<int32_t> tokens = some_tokens(30);
  int64_t next = 0;
  session.read_all(tokens, [&](int64_t position, int64_t n, std::span<const float> logits) {
    EXPECT_EQ(position, next);
    EXPECT_EQ(static_cast<int64_t>(logits.size()), n * 512);
    for (int64_t i = 0; i < n; ++i, ++next) {
      const std::span<const float> one =
          single.read(std::span(tokens).subspan(static_cast<size_t>(next), 1));
      EXPECT_TRUE(std::equal(one.begin(), one.end(),
                             logits.begin() + static_cast<std::ptrdiff_t>(i * 512)));
    }
  });
  EXPECT_EQ(next, 30);
}

TEST_F(Generate, LogitsComeInPartsOfAChunk) {
  SessionOptions o;
  o.chunk = 16;
  o.logit_bytes = 7 * 512 * 4 + 5;
  Session session(model_, ops_, o), whole(model_, ops_, {});
  const std::vector<int32_t> tokens = some_tokens(40);
  std::vector<float> got, expected;
  std::vector<int64_t> positions, done;
  session.read_all(
      tokens,
      [&](int64_t position, int64_t n, std::span<const float> logits) {
        EXPECT_EQ(static_cast<int64_t>(logits.size()), n * 512);
        positions.push_back(position);
        got.insert(got.end(), logits.begin(), logits.end());
      },
      [&](int64_t n, int64_t) { done.push_back(n); });
  EXPECT_EQ(positions, (std::vector<int64_t>{0, 7, 14, 16, 23, 30, 32, 39}));
  EXPECT_EQ(done, (std::vector<int64_t>{7, 14, 16, 23, 30, 32, 39, 40}));
  whole.read_all(tokens, [&](int64_t, int64_t, std::span<const float> logits) {
    expected.insert(expected.end(), logits.begin(), logits.end());
  });
  EXPECT_EQ(expected.size(), 40u * 512);
  EXPECT_TRUE(got == expected);

  // Stopped while logits are handed out, the chunk stays read and reading can go on after it.
  std::atomic<bool> stop = false;
  session.clear();
  EXPECT_THROW(
      session.read_all(
          tokens, [&](int64_t, int64_t, std::span<const float>) { stop = true; }, {}, &stop),
      Interrupted);
  EXPECT_EQ(session.length(), 16);
  const std::span<const float> last = session.read(std::span(tokens).subspan(16));
  EXPECT_TRUE(std::equal(last.begin(), last.end(), expected.end() - 512));
}

}  // namespace
}  // namespace carat::engine
