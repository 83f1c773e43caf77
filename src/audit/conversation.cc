#include "audit/conversation.h"

#include "base/error.h"
#include "base/json.h"

namespace carat::audit {
namespace {

using text::Message;
using text::Role;

Role role_of(const std::string& name) {
  if (name == "system" || name == "developer") return Role::kSystem;
  if (name == "user" || name == "human") return Role::kUser;
  if (name == "assistant" || name == "model") return Role::kModel;
  if (name == "tool") return Role::kTool;
  throw Error({"unknown role", {}, {}, "system, user, assistant or tool", name, {}});
}

std::vector<text::Part> content_of(const Json& message) {
  const Json* content = find(message, "content");
  if (content == nullptr) return {};
  if (content->is_string()) return {{text::Part::Kind::kText, content->get<std::string>()}};
  if (!content->is_array()) {
    throw Error({"content is neither a text nor a list of parts", {}, {}, {}, {}, {}});
  }
  std::vector<text::Part> parts;
  for (const Json& part : *content) {
    const std::string type = get_string(part, "type");
    if (type != "text") {
      throw Error({"a part of a message is not text",
                   {},
                   {},
                   "type \"text\"",
                   type,
                   "images and sound are not audited"});
    }
    parts.push_back({text::Part::Kind::kText, get_string(part, "text")});
  }
  return parts;
}

text::ToolCall tool_call(const Json& call) {
  const Json* inner = find(call, "function");
  const Json& function = inner != nullptr ? *inner : call;
  text::ToolCall out;
  out.name = get_string(function, "name");
  out.id = get_string(call, "id", "");
  if (const Json* arguments = find(function, "arguments")) {
    out.arguments = arguments->is_string() ? parse_json(arguments->get<std::string>()) : *arguments;
    if (!out.arguments.is_object()) throw Error("a call's arguments are not an object");
  }
  return out;
}

Message message_of(const Json& j) {
  if (!j.is_object()) throw Error("a message is not an object");
  Message m;
  m.role = role_of(get_string(j, "role"));
  m.content = content_of(j);
  if (m.role == Role::kModel) {
    m.reasoning = get_string(j, "reasoning_content", "");
    if (const Json* calls = find(j, "tool_calls")) {
      if (!calls->is_array()) throw Error("tool_calls is not a list");
      for (const Json& call : *calls) m.tool_calls.push_back(tool_call(call));
    }
  }
  if (m.role == Role::kTool) {
    m.tool_call_id = get_string(j, "tool_call_id", "");
    m.tool_name = get_string(j, "name", "");
  }
  return m;
}

Document document_of(std::string_view line) {
  const Json j = parse_json(line);
  if (!j.is_object()) throw Error("the line is not an object");
  Document document;
  if (const Json* messages = find(j, "messages")) {
    if (!messages->is_array() || messages->empty()) {
      throw Error("messages is not a list with something in it");
    }
    for (const Json& m : *messages) document.messages.push_back(message_of(m));
  } else {
    document.text = get_string(j, "text");
  }
  return document;
}

}  // namespace

std::vector<Document> parse_documents(std::string_view jsonl) {
  std::vector<Document> documents;
  for (int64_t number = 1; !jsonl.empty(); ++number) {
    const size_t end = jsonl.find('\n');
    const std::string_view line = jsonl.substr(0, end);
    jsonl.remove_prefix(end == std::string_view::npos ? jsonl.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      documents.push_back(document_of(line));
    } catch (const Error& e) {
      // A parser's own place is inside the line, which is all of its text.
      ErrorInfo info = e.info();
      info.place = "line " + std::to_string(number) + (info.place.empty() ? "" : ", " + info.place);
      throw Error(info);
    }
  }
  return documents;
}

}  // namespace carat::audit
