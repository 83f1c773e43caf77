#include "app/chat_loop.h"

#include <fmt/format.h>

#include <cstdio>

#include "app/progress.h"
#include "app/signals.h"
#include "app/standard_input.h"
#include "base/error.h"

namespace carat::app {
namespace {

constexpr const char* kHelp =
    "  /clear   forgets the conversation\n"
    "  /exit    ends (so does Ctrl-D)\n"
    "  \"\"\"      begins and ends a turn of several lines\n"
    "  Ctrl-C   stops an answer\n";

// One turn as typed; nothing at the end of the input.
std::optional<std::string> read_turn() {
  fmt::print(stderr, "> ");
  std::fflush(stderr);
  std::optional<std::string> line = read_line();
  if (!line || !line->starts_with("\"\"\"")) return line;
  std::string turn = line->substr(3);
  for (;;) {
    const bool ends = turn.size() >= 3 && turn.ends_with("\"\"\"");
    if (ends) return turn.substr(0, turn.size() - 3);
    line = read_line();
    if (!line) return turn;
    turn += (turn.empty() ? "" : "\n") + *line;
  }
}

std::vector<text::Message> opening(const ChatSettings& settings) {
  std::vector<text::Message> messages;
  if (!settings.system.empty()) {
    messages.push_back(text::text_message(text::Role::kSystem, settings.system));
  }
  return messages;
}

// A conversation that grows turn by turn.
class Conversation {
 public:
  Conversation(Answerer& answerer, const ChatSettings& settings)
      : answerer_(answerer), settings_(settings), messages_(opening(settings)) {}

  void clear() { messages_ = opening(settings_); }

  void take_turn(const std::string& turn) {
    if (!settings_.chat) {
      finish(stream_answer(answerer_, plain_prompt(answerer_.tokenizer, turn), false));
      return;
    }
    messages_.push_back(text::text_message(text::Role::kUser, turn));
    try {
      const Answer answer = stream_answer(
          answerer_, text::render_chat(answerer_.tokenizer, messages_, settings_.render), true);
      text::Message reply = text::text_message(text::Role::kModel, answer.text);
      reply.reasoning = answer.reasoning;
      messages_.push_back(std::move(reply));
      finish(answer);
    } catch (const Error&) {
      messages_.pop_back();
      throw;
    }
  }

 private:
  void finish(const Answer& answer) const {
    if (settings_.show_timing) fmt::print(stderr, "[{}]\n", timing_line(answer.result));
  }

  Answerer& answerer_;
  const ChatSettings& settings_;
  std::vector<text::Message> messages_;
};

}  // namespace

std::vector<int32_t> plain_prompt(const text::Tokenizer& tokenizer, const std::string& prompt) {
  std::vector<int32_t> ids;
  const text::Vocab& vocab = tokenizer.vocab();
  if (vocab.add_bos && vocab.special.bos != text::kNoToken) ids.push_back(vocab.special.bos);
  tokenizer.encode(prompt, &ids);
  return ids;
}

std::vector<int32_t> chat_prompt(const text::Tokenizer& tokenizer, const std::string& prompt,
                                 const ChatSettings& settings) {
  std::vector<text::Message> messages = opening(settings);
  messages.push_back(text::text_message(text::Role::kUser, prompt));
  return text::render_chat(tokenizer, messages, settings.render);
}

Answer stream_answer(Answerer& answerer, const std::vector<int32_t>& prompt, bool chat) {
  const bool dim = stderr_is_terminal();
  bool thinking = false;
  Progress progress("prompt tokens");
  AnswerSink sink;
  sink.reading = [&](int64_t done, int64_t total) { progress.update(done, total); };
  const auto end_thought = [&] {
    if (thinking) fmt::print(stderr, "{}\n\n", dim ? "\x1b[0m" : "");
    thinking = false;
  };
  sink.reasoning = [&](std::string_view part) {
    progress.finish();
    fmt::print(stderr, "{}{}", !thinking && dim ? "\x1b[2m" : "", part);
    thinking = true;
  };
  sink.text = [&](std::string_view part) {
    progress.finish();
    end_thought();
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
  };
  Answer answer = answerer.answer(prompt, chat, sink);
  progress.finish();
  end_thought();
  if (!answer.text.empty() && answer.text.back() != '\n') {
    std::fputc('\n', stdout);
    std::fflush(stdout);
  }
  return answer;
}

void chat_loop(Answerer& answerer, const ChatSettings& settings) {
  Conversation conversation(answerer, settings);
  fmt::print(stderr, "{} /help helps, Ctrl-D ends.\n",
             settings.chat ? "Type a message." : "Type a beginning; the model goes on from it.");
  while (const std::optional<std::string> turn = read_turn()) {
    if (*turn == "/exit" || *turn == "/bye" || *turn == "/quit") return;
    if (*turn == "/help" || *turn == "/?") {
      fmt::print(stderr, "{}", kHelp);
    } else if (*turn == "/clear") {
      conversation.clear();
    } else if (!turn->empty()) {
      try {
        conversation.take_turn(*turn);
      } catch (const Error& error) {
        fmt::print(stderr, "{}\n", error.what());
      }
      clear_stop();
    }
  }
  fmt::print(stderr, "\n");
}

}  // namespace carat::app
