#include "text/chat.h"

#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "text/chat_writer.h"

namespace carat::text {
namespace {

bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

// The code point of a valid character of up to three bytes, else 0.
uint32_t code_point(std::string_view c) {
  const auto b = [&](size_t i) { return static_cast<uint8_t>(c[i]); };
  if (c.size() == 1) return b(0);
  if (c.size() == 2) return (b(0) & 31u) << 6 | (b(1) & 63u);
  if (c.size() == 3) return (b(0) & 15u) << 12 | (b(1) & 63u) << 6 | (b(2) & 63u);
  return 0;
}

// Model text as history: thoughts that stand in it are cut out.
std::string strip_thinking(std::string_view text) {
  constexpr std::string_view kOpen = "<|channel>", kClose = "<channel|>";
  std::string kept;
  while (true) {
    const size_t close = text.find(kClose);
    const std::string_view piece = text.substr(0, close);
    kept += piece.substr(0, piece.find(kOpen));
    if (close == std::string_view::npos) break;
    text.remove_prefix(close + kClose.size());
  }
  return std::string(trim(kept));
}

class Renderer {
 public:
  Renderer(const Tokenizer& tokenizer, std::span<const Message> messages,
           const ChatOptions& options)
      : out_(tokenizer), messages_(messages), options_(options) {}

  std::vector<int32_t> run() {
    for (size_t i = 0; i < messages_.size(); ++i) {
      if (messages_[i].role == Role::kUser) last_user_ = static_cast<int64_t>(i);
    }
    out_.marker(&SpecialIds::bos);
    size_t i = first_system_turn();
    while (i < messages_.size()) {
      const Role role = messages_[i].role;
      if (role == Role::kModel) {
        i = model_turn(i);
      } else if (role == Role::kTool) {
        orphan(i);
      } else {
        open_turn(role == Role::kSystem ? "system" : "user");
        content(messages_[i]);
        close_turn();
        ++i;
      }
    }
    if (options_.generation_prompt) generation_prompt();
    return out_.take();
  }

 private:
  // How the last model turn was left.
  enum class Tail { kClosed, kAfterResponse, kAwaitsResponse };

  void open_turn(std::string_view role) {
    out_.marker(&SpecialIds::turn_begin);
    out_.text(role);
    out_.text("\n");
  }

  void close_turn() {
    out_.marker(&SpecialIds::turn_end);
    out_.text("\n");
  }

  [[noreturn]] void orphan(size_t i) const {
    throw Error({"a tool message answers no tool call",
                 {},
                 "message " + std::to_string(i),
                 {},
                 messages_[i].tool_call_id,
                 {}});
  }

  void content(const Message& message) {
    const bool system = message.role == Role::kSystem;
    const bool list = message.content.size() > 1;
    for (const Part& part : message.content) {
      switch (part.kind) {
        case Part::Kind::kText:
          out_.text(message.role == Role::kModel ? strip_thinking(part.text) : trim(part.text));
          if (system && list) out_.text(" ");
          break;
        case Part::Kind::kImage:
          out_.marker(&SpecialIds::image);
          break;
        case Part::Kind::kAudio:
          out_.marker(&SpecialIds::audio);
          break;
        case Part::Kind::kVideo:
          out_.marker(&SpecialIds::video);
          break;
      }
    }
  }

  // Returns the index of the first message after it.
  size_t first_system_turn() {
    const bool has_text = !messages_.empty() && messages_[0].role == Role::kSystem;
    if (!options_.thinking && options_.tools.empty() && !has_text) return 0;
    open_turn("system");
    if (options_.thinking) {
      out_.marker(&SpecialIds::think);
      out_.text("\n");
    }
    if (has_text) content(messages_[0]);
    for (const Tool& tool : options_.tools) write_declaration(tool, &out_);
    close_turn();
    return has_text ? 1 : 0;
  }

  // All model and tool messages up to the next of another role make one turn.
  size_t model_turn(size_t i) {
    open_turn("model");
    tail_ = Tail::kClosed;
    while (i < messages_.size() && messages_[i].role == Role::kModel) {
      const Message& message = messages_[i];
      const bool running = static_cast<int64_t>(i) > last_user_;
      const bool kept = options_.preserve_thinking && !message.tool_calls.empty();
      if (!message.reasoning.empty() && (running || kept)) {
        out_.marker(&SpecialIds::channel_begin);
        out_.text("thought\n");
        out_.text(message.reasoning);
        out_.text("\n");
        out_.marker(&SpecialIds::channel_end);
      }
      content(message);
      for (const ToolCall& call : message.tool_calls) write_call(call, &out_);
      tail_ = Tail::kClosed;
      if (!message.tool_calls.empty()) tail_ = Tail::kAwaitsResponse;
      ++i;
      for (; i < messages_.size() && messages_[i].role == Role::kTool; ++i) {
        if (message.tool_calls.empty()) orphan(i);
        response(message, i);
        tail_ = Tail::kAfterResponse;
      }
    }
    const bool last = i == messages_.size();
    if (last && tail_ == Tail::kAwaitsResponse) {
      out_.marker(&SpecialIds::tool_response_begin);
    } else if (!last || tail_ == Tail::kClosed) {
      close_turn();
      tail_ = Tail::kClosed;
    }
    return i;
  }

  void response(const Message& caller, size_t i) {
    const Message& message = messages_[i];
    std::string name = message.tool_name.empty() ? "unknown" : message.tool_name;
    for (const ToolCall& call : caller.tool_calls) {
      if (!message.tool_call_id.empty() && call.id == message.tool_call_id) name = call.name;
    }
    std::string text;
    for (const Part& part : message.content) {
      if (part.kind == Part::Kind::kText) text += part.text;
    }
    write_response(name, text, &out_);
    Message media = message;
    std::erase_if(media.content, [](const Part& p) { return p.kind == Part::Kind::kText; });
    content(media);
  }

  void generation_prompt() {
    switch (tail_) {
      case Tail::kAwaitsResponse:
        return;
      case Tail::kAfterResponse:
        if (options_.thinking) {
          out_.marker(&SpecialIds::channel_begin);
          out_.text("thought\n");
        }
        return;
      case Tail::kClosed:
        open_turn("model");
        if (!options_.small_family && !options_.thinking) {
          out_.marker(&SpecialIds::channel_begin);
          out_.text("thought\n");
          out_.marker(&SpecialIds::channel_end);
        }
    }
  }

  ChatWriter out_;
  std::span<const Message> messages_;
  const ChatOptions& options_;
  int64_t last_user_ = -1;
  Tail tail_ = Tail::kClosed;
};

}  // namespace

std::string_view trim(std::string_view text) {
  while (!text.empty()) {
    const int length = utf8_front(text).length;
    if (length == 0 || !is_space(code_point(text.substr(0, length)))) break;
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
    const std::string_view last = text.substr(begin);
    const int length = utf8_front(last).length;
    if (length != static_cast<int>(last.size()) || !is_space(code_point(last))) break;
    text.remove_suffix(last.size());
  }
  return text;
}

void ChatWriter::marker(int32_t SpecialIds::*which) {
  flush();
  const int32_t id = tokenizer_.vocab().special.*which;
  if (id == kNoToken) {
    std::string name;
    for (const SpecialToken& token : special_tokens()) {
      if (token.id == which) name = token.text;
    }
    throw Error({"the vocabulary lacks a token of the chat format",
                 {},
                 {},
                 name,
                 {},
                 "the model may not be tuned for conversation; give it plain text instead"});
  }
  ids_.push_back(id);
}

void ChatWriter::flush() {
  tokenizer_.encode(pending_, &ids_);
  pending_.clear();
}

std::vector<int32_t> ChatWriter::take() {
  flush();
  return std::move(ids_);
}

Message text_message(Role role, std::string text) {
  Message message;
  message.role = role;
  message.content.push_back({Part::Kind::kText, std::move(text)});
  return message;
}

std::vector<int32_t> render_chat(const Tokenizer& tokenizer, std::span<const Message> messages,
                                 const ChatOptions& options) {
  return Renderer(tokenizer, messages, options).run();
}

}  // namespace carat::text
