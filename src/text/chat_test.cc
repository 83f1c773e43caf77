#include "text/chat.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/bpe_trainer.h"
#include "text/test_cases.h"
#include "text/test_text.h"

namespace carat::text {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer t(train_bpe(kTestText, {.vocab_size = 560, .min_character_count = 3}));
  return t;
}

struct ChatCase {
  std::string name, expect, error, markers;
  std::vector<Message> messages;
  ChatOptions options;
};

Tool read_tool(const std::string& text) {
  const Json j = parse_json(text);
  Tool tool{get_string(j, "name"), get_string(j, "description", ""), {}, {}};
  if (const Json* p = find(j, "parameters")) tool.parameters = *p;
  return tool;
}

ToolCall read_call(const std::string& text) {
  std::istringstream in(text);
  ToolCall call;
  std::string json;
  in >> call.name >> json >> call.id;
  call.arguments = parse_json(json);
  return call;
}

ChatCase read_chat_case(const CaseLines& lines) {
  ChatCase c;
  std::string reasoning, answers, name;
  for (const auto& [key, value] : lines) {
    const auto role = [&](const std::string& word) {
      return word == "system"  ? Role::kSystem
             : word == "user"  ? Role::kUser
             : word == "model" ? Role::kModel
                               : Role::kTool;
    };
    if (key == "case") {
      c.name = value;
    } else if (key == "expect") {
      c.expect += value;
    } else if (key == "error") {
      c.error = value;
    } else if (key == "markers") {
      c.markers = value;
    } else if (key == "family") {
      c.options.small_family = value == "small";
    } else if (key == "thinking") {
      c.options.thinking = value == "on";
    } else if (key == "preserve_thinking") {
      c.options.preserve_thinking = value == "on";
    } else if (key == "generation_prompt") {
      c.options.generation_prompt = value == "on";
    } else if (key == "declare") {
      c.options.tools.push_back(read_tool(value));
    } else if (key == "call") {
      c.messages.back().tool_calls.push_back(read_call(value));
    } else if (key == "reasoning") {
      reasoning = value;
    } else if (key == "answers") {
      answers = value;
    } else if (key == "name") {
      name = value;
    } else if (key == "image") {
      c.messages.back().content.push_back({Part::Kind::kImage, {}});
    } else if (key[0] == '+') {
      c.messages.back().content.push_back({Part::Kind::kText, value});
    } else {
      Message message = text_message(role(key), value);
      if (message.role == Role::kModel) message.reasoning = std::exchange(reasoning, {});
      if (message.role == Role::kTool) {
        message.tool_call_id = std::exchange(answers, {});
        message.tool_name = std::exchange(name, {});
      }
      c.messages.push_back(message);
    }
  }
  return c;
}

TEST(RenderChat, GoldenCases) {
  const Tokenizer& t = tokenizer();
  const CaseFile file = read_cases("render.txt", {"case"});
  EXPECT_GE(file.cases.size(), 20u);
  for (const CaseLines& lines : file.cases) {
    const ChatCase c = read_chat_case(lines);
    if (!c.error.empty()) {
      try {
        (void)render_chat(t, c.messages, c.options);
        ADD_FAILURE() << c.name;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find(c.error), std::string::npos) << c.name << "\n"
                                                                          << e.what();
      }
      continue;
    }
    const std::vector<int32_t> ids = render_chat(t, c.messages, c.options);
    EXPECT_EQ(t.decode(ids, true), c.expect) << c.name;
    EXPECT_EQ(ids, t.encode_with_specials(c.expect)) << c.name;
  }
}

TEST(RenderChat, TextsNeverBecomeMarkers) {
  const Tokenizer& t = tokenizer();
  const CaseFile file = read_cases("injection.txt", {"case"});
  EXPECT_GE(file.cases.size(), 4u);
  for (const CaseLines& lines : file.cases) {
    const ChatCase c = read_chat_case(lines);
    std::string markers;
    for (int32_t id : render_chat(t, c.messages, c.options)) {
      if (t.vocab().types[id] == TokenType::kControl) markers += t.vocab().piece(id);
    }
    EXPECT_EQ(markers, c.markers) << c.name;
  }
}

TEST(RenderChat, AVocabularyWithoutTurnsIsRefused) {
  VocabBuilder builder;
  builder.add_piece("<bos>");
  builder.add_piece("<unk>");
  const Tokenizer t(builder.finish());
  const Message hi = text_message(Role::kUser, "Hi");
  EXPECT_THROW((void)render_chat(t, {&hi, 1}), Error);
}

std::string calls_text(const Tokenizer& t, const std::vector<OutputDelta::Call>& calls) {
  std::string text;
  for (const auto& call : calls)
    text += (call.complete ? "[" : "cut[") + t.decode(call.ids, true) + "]";
  return text;
}

void add(const OutputDelta& delta, OutputDelta* sum) {
  EXPECT_TRUE(is_valid_utf8(delta.content));
  EXPECT_TRUE(is_valid_utf8(delta.reasoning));
  sum->content += delta.content;
  sum->reasoning += delta.reasoning;
  sum->calls.insert(sum->calls.end(), delta.calls.begin(), delta.calls.end());
  sum->stop |= delta.stop;
}

TEST(OutputParser, GoldenCases) {
  const Tokenizer& t = tokenizer();
  const CaseFile file = read_cases("parse.txt", {"case"});
  EXPECT_GE(file.cases.size(), 20u);
  for (const CaseLines& lines : file.cases) {
    std::string prompt, output, content, reasoning, calls;
    bool stop = false;
    for (const auto& [key, value] : lines) {
      if (key == "prompt") prompt = value;
      if (key == "output") output = value;
      if (key == "content") content = value;
      if (key == "reasoning") reasoning = value;
      if (key == "call") calls += "[" + value + "]";
      if (key == "cut") calls += "cut[" + value + "]";
      if (key == "stop") stop = value == "yes";
    }
    const std::string& name = lines[0].second;
    // In pieces as the model would write them, and spelled letter by letter.
    for (bool spelled : {false, true}) {
      std::vector<int32_t> ids;
      for (int32_t id : t.encode_with_specials(output)) {
        const bool marker = t.vocab().types[id] == TokenType::kControl;
        if (!spelled || marker) {
          ids.push_back(id);
          continue;
        }
        for (char c : t.decode_bytes({&id, 1}))
          ids.push_back(t.vocab().byte_tokens[static_cast<uint8_t>(c)]);
      }
      OutputParser parser(t, t.encode_with_specials(prompt));
      OutputDelta sum;
      for (int32_t id : ids) add(parser.push(id), &sum);
      add(parser.finish(), &sum);
      EXPECT_EQ(sum.content, content) << name;
      EXPECT_EQ(sum.reasoning, reasoning) << name;
      EXPECT_EQ(calls_text(t, sum.calls), calls) << name;
      EXPECT_EQ(sum.stop, stop) << name;
    }
  }
}

TEST(OutputParser, StreamsAsSoonAsItCan) {
  const Tokenizer& t = tokenizer();
  OutputParser parser(t, {});
  std::string shown;
  for (int32_t id : t.encode_with_specials("<|channel>thought\nIt was\n"))
    shown += parser.push(id).reasoning + "|";
  EXPECT_EQ(shown.find("It"), shown.find_first_not_of('|'));
  EXPECT_EQ(parser.push(t.vocab().special.channel_end).reasoning, "");
  EXPECT_EQ(parser.push(t.encode(" the")[0]).content, " the");
}

// Rendering what was parsed gives the same ids: a server's cache of prefixes depends on it.
TEST(OutputParser, RoundTripsThroughRendering) {
  const Tokenizer& t = tokenizer();
  const Message user = text_message(Role::kUser, "w?");
  ChatOptions options;
  options.thinking = options.small_family = true;
  std::vector<int32_t> prompt = render_chat(t, {&user, 1}, options);
  const std::vector<int32_t> output =
      t.encode_with_specials("<|channel>thought\nIt was.\n\nYes.\n<channel|>The age of 17.<turn|>");
  OutputParser parser(t, prompt);
  OutputDelta sum;
  for (int32_t id : output) add(parser.push(id), &sum);
  Message model = text_message(Role::kModel, sum.content);
  model.reasoning = sum.reasoning;
  ChatOptions history = options;
  history.generation_prompt = false;
  prompt.insert(prompt.end(), output.begin(), output.end());
  prompt.push_back(t.encode("\n")[0]);
  EXPECT_EQ(render_chat(t, std::vector<Message>{user, model}, history), prompt);
}

TEST(OutputParser, AnyIdsAreTolerated) {
  const Tokenizer& t = tokenizer();
  Rng rng(11);
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> prompt;
    for (uint64_t n = rng.below(4); n > 0; --n)
      prompt.push_back(static_cast<int32_t>(rng.below(24)));
    OutputParser parser(t, prompt);
    OutputDelta sum;
    for (uint64_t n = rng.below(40); n > 0; --n) {
      const uint64_t range = rng.below(2) == 0 ? 24 : static_cast<uint64_t>(t.vocab().size());
      add(parser.push(static_cast<int32_t>(rng.below(range))), &sum);
    }
    add(parser.finish(), &sum);
    EXPECT_TRUE(parser.push(t.encode("x")[0]).content.empty());
  }
}

}  // namespace
}  // namespace carat::text
