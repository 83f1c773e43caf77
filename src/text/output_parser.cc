#include <utility>

#include "text/chat.h"

namespace carat::text {
namespace {

constexpr std::string_view kLabel = "thought";

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

// Where a label ends: its length with the newline, 0 if it may still become one, -1 if it is none.
int match_label(std::string_view text) {
  const std::string_view head = text.substr(0, kLabel.size());
  if (head != kLabel.substr(0, head.size())) return -1;
  for (size_t i = kLabel.size(); i < text.size(); ++i) {
    if (text[i] == '\n') return static_cast<int>(i) + 1;
    if (!is_blank(text[i])) return -1;
  }
  return 0;
}

// Whether generation begins inside a thought: the last marker of structure opens one.
bool ends_in_thought(std::span<const int32_t> prompt, const SpecialIds& special) {
  for (size_t i = prompt.size(); i-- > 0;) {
    const int32_t id = prompt[i];
    if (id == special.channel_begin) return true;
    if (id == special.channel_end || id == special.turn_begin || id == special.turn_end ||
        id == special.tool_call_begin || id == special.tool_response_begin) {
      return false;
    }
  }
  return false;
}

}  // namespace

OutputParser::OutputParser(const Tokenizer& tokenizer, std::span<const int32_t> prompt)
    : tokenizer_(&tokenizer), special_(tokenizer.vocab().special), decoder_(tokenizer) {
  if (special_.channel_begin != kNoToken && ends_in_thought(prompt, special_)) {
    state_ = prompt.back() == special_.channel_begin ? State::kLabel : State::kReasoning;
  }
}

OutputDelta OutputParser::push(int32_t id) {
  OutputDelta delta;
  if (state_ == State::kStopped) {
    delta.stop = true;
    return delta;
  }
  const Vocab& vocab = tokenizer_->vocab();
  const bool is_marker =
      vocab.is_stop(id) ||
      (id >= 0 && id < vocab.size() &&
       (vocab.types[id] == TokenType::kControl || vocab.types[id] == TokenType::kUnknown));
  if (is_marker) {
    marker(id, &delta);
  } else if (state_ == State::kCall) {
    call_.push_back(id);
  } else {
    text(decoder_.push(id), &delta);
  }
  return delta;
}

OutputDelta OutputParser::finish() {
  OutputDelta delta;
  if (state_ != State::kStopped) leave(&delta);
  delta.stop = state_ == State::kStopped;
  state_ = State::kStopped;
  return delta;
}

void OutputParser::marker(int32_t id, OutputDelta* delta) {
  if (tokenizer_->vocab().is_stop(id)) {
    leave(delta);
    state_ = State::kStopped;
    delta->stop = true;
  } else if (id == special_.tool_call_begin) {
    // White space between the answer and a call belongs to neither.
    text(decoder_.finish(), delta);
    if (state_ == State::kContent) held_.clear();
    leave(delta);
    state_ = State::kCall;
  } else if (state_ == State::kCall) {
    if (id == special_.tool_call_end) {
      close_call(true, delta);
      state_ = State::kContent;
    } else {
      call_.push_back(id);
    }
  } else if (id == special_.channel_begin) {
    if (state_ == State::kReasoning) return;
    if (state_ == State::kLabel) held_.clear();
    leave(delta);
    state_ = State::kLabel;
  } else if (id == special_.channel_end) {
    if (state_ == State::kContent) return;
    leave(delta);
    state_ = State::kContent;
  }
}

// Ends the current state: what is still held back comes out or is dropped.
void OutputParser::leave(OutputDelta* delta) {
  if (state_ == State::kCall) {
    close_call(false, delta);
    return;
  }
  text(decoder_.finish(), delta);
  if (state_ == State::kContent) delta->content += held_;
  if (state_ == State::kReasoning) new_thought_ = true;
  held_.clear();
}

void OutputParser::close_call(bool complete, OutputDelta* delta) {
  delta->calls.push_back({std::exchange(call_, {}), complete});
}

void OutputParser::text(std::string_view text, OutputDelta* delta) {
  if (text.empty()) return;
  if (state_ == State::kLabel)
    label_text(text, delta);
  else if (state_ == State::kReasoning)
    reasoning_text(text, delta);
  else if (state_ == State::kContent)
    content_text(text, delta);
}

void OutputParser::label_text(std::string_view text, OutputDelta* delta) {
  held_ += text;
  const int end = match_label(held_);
  if (end == 0) return;
  const std::string all = std::exchange(held_, {});
  if (end < 0) {
    state_ = State::kContent;
    content_text(all, delta);
  } else {
    state_ = State::kReasoning;
    reasoning_text(std::string_view(all).substr(end), delta);
  }
}

void OutputParser::content_text(std::string_view text, OutputDelta* delta) {
  held_ += text;
  const size_t last = held_.find_last_not_of(" \t\r\n");
  if (last == std::string::npos) return;
  delta->content.append(held_, 0, last + 1);
  held_.erase(0, last + 1);
}

void OutputParser::reasoning_text(std::string_view text, OutputDelta* delta) {
  if (text.empty()) return;
  held_ += text;
  const size_t kept = held_.back() == '\n' ? 1 : 0;
  if (held_.size() == kept) return;
  if (had_reasoning_ && new_thought_) delta->reasoning += '\n';
  had_reasoning_ = true;
  new_thought_ = false;
  delta->reasoning.append(held_, 0, held_.size() - kept);
  held_.erase(0, held_.size() - kept);
}

}  // namespace carat::text
