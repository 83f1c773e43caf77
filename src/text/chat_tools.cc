// The mini-language of tool declarations, calls and responses.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/chat_writer.h"

namespace carat::text {
namespace {

constexpr int kMaxDepth = 64;

std::string lower(std::string_view s) {
  std::string r(s);
  for (char& c : r) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return r;
}

std::string upper(std::string_view s) {
  std::string r(s);
  for (char& c : r) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c;
  return r;
}

// The members of an object by key, upper and lower case alike.
std::vector<std::pair<std::string_view, const Json*>> sorted(const Json& object) {
  std::vector<std::pair<std::string_view, const Json*>> members;
  for (const auto& item : object.items()) members.emplace_back(item.key(), &item.value());
  std::stable_sort(members.begin(), members.end(),
                   [](const auto& a, const auto& b) { return lower(a.first) < lower(b.first); });
  return members;
}

// As Python's repr writes it: shortest digits, an exponent from 1e16 up and below 1e-4.
std::string float_text(double v) {
  char digits[64];
  const auto r = std::to_chars(digits, digits + sizeof(digits), v, std::chars_format::scientific);
  const std::string_view text(digits, r.ptr - digits);
  const int exponent = std::atoi(std::string(text.substr(text.find('e') + 1)).c_str());
  if (exponent < -4 || exponent >= 16) return std::string(text);
  const auto f = std::to_chars(digits, digits + sizeof(digits), v, std::chars_format::fixed);
  std::string fixed(digits, f.ptr - digits);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

class ToolWriter {
 public:
  explicit ToolWriter(ChatWriter* out) : out_(*out) {}

  void quote(std::string_view s) {
    out_.marker(&SpecialIds::quote);
    out_.text(s);
    out_.marker(&SpecialIds::quote);
  }

  // Any value; keys bare or quoted.
  void value(const Json& v, bool quote_keys, int depth) {
    check(depth);
    if (v.is_string()) {
      quote(v.get_ref<const std::string&>());
    } else if (v.is_number_float()) {
      const double d = v.get<double>();
      out_.text(std::isfinite(d) ? float_text(d) : "null");
    } else if (v.is_array()) {
      out_.text("[");
      bool first = true;
      for (const Json& element : v) {
        comma(&first);
        value(element, quote_keys, depth + 1);
      }
      out_.text("]");
    } else if (v.is_object()) {
      out_.text("{");
      members(v, quote_keys, depth);
      out_.text("}");
    } else {
      out_.text(to_json_text(v));  // null, true, false, integers
    }
  }

  void members(const Json& object, bool quote_keys, int depth) {
    bool first = true;
    for (const auto& [key, v] : sorted(object)) {
      comma(&first);
      if (quote_keys) {
        quote(key);
      } else {
        out_.text(key);
      }
      out_.text(":");
      value(*v, quote_keys, depth + 1);
    }
  }

  // The schema of an object: {properties:{...},required:[...],type:...} without its braces.
  void object_schema(const Json& schema, int depth) {
    bool first = true;
    if (const Json* properties = find(schema, "properties"); non_empty_object(properties)) {
      comma(&first);
      out_.text("properties:{");
      property_map(*properties, depth + 1);
      out_.text("}");
    }
    required(schema, &first);
    comma(&first);
    out_.text("type:");
    quote(upper(get_string(schema, "type", "object")));
  }

 private:
  static bool non_empty_object(const Json* j) {
    return j != nullptr && j->is_object() && !j->empty();
  }

  static void check(int depth) {
    if (depth > kMaxDepth) {
      throw Error({"tool values are nested too deeply",
                   {},
                   {},
                   "at most " + std::to_string(kMaxDepth) + " levels",
                   {},
                   {}});
    }
  }

  void comma(bool* first) {
    if (!*first) out_.text(",");
    *first = false;
  }

  void required(const Json& schema, bool* first) {
    const Json* names = find(schema, "required");
    if (names == nullptr || !names->is_array() || names->empty()) return;
    comma(first);
    out_.text("required:[");
    strings(*names);
    out_.text("]");
  }

  void strings(const Json& list) {
    bool first = true;
    for (const Json& s : list) {
      comma(&first);
      quote(s.is_string() ? s.get<std::string>() : to_json_text(s));
    }
  }

  void property_map(const Json& properties, int depth) {
    check(depth);
    bool first = true;
    for (const auto& [key, schema] : sorted(properties)) {
      if (!schema->is_object()) continue;
      comma(&first);
      out_.text(key);
      out_.text(":{");
      property(*schema, depth + 1);
      out_.text("}");
    }
  }

  void property(const Json& schema, int depth) {
    check(depth);
    const Json* type_value = find(schema, "type");
    const std::string type = type_value != nullptr && type_value->is_string()
                                 ? upper(type_value->get<std::string>())
                                 : "";
    bool first = true;
    if (const Json* d = find(schema, "description");
        d != nullptr && d->is_string() && !d->get_ref<const std::string&>().empty()) {
      comma(&first);
      out_.text("description:");
      quote(d->get_ref<const std::string&>());
    }
    const Json* values = find(schema, "enum");
    if (type == "STRING" && values != nullptr && values->is_array() && !values->empty()) {
      comma(&first);
      out_.text("enum:[");
      strings(*values);
      out_.text("]");
    }
    if (const Json* items = find(schema, "items"); type == "ARRAY" && non_empty_object(items)) {
      comma(&first);
      out_.text("items:{");
      array_items(*items, depth + 1);
      out_.text("}");
    }
    if (const Json* nullable = find(schema, "nullable");
        nullable != nullptr && *nullable == Json(true)) {
      comma(&first);
      out_.text("nullable:true");
    }
    if (type == "OBJECT") {
      if (const Json* properties = find(schema, "properties"); non_empty_object(properties)) {
        comma(&first);
        out_.text("properties:{");
        property_map(*properties, depth + 1);
        out_.text("}");
      }
      required(schema, &first);
    }
    comma(&first);
    out_.text("type:");
    quote(type);
  }

  void array_items(const Json& items, int depth) {
    bool first = true;
    for (const auto& [key, v] : sorted(items)) {
      if (v->is_null()) continue;
      comma(&first);
      out_.text(key);
      out_.text(":");
      if (key == "properties" && v->is_object()) {
        out_.text("{");
        property_map(*v, depth + 1);
        out_.text("}");
      } else if (key == "required" && v->is_array()) {
        out_.text("[");
        strings(*v);
        out_.text("]");
      } else if (key == "type" && v->is_string()) {
        quote(upper(v->get_ref<const std::string&>()));
      } else {
        value(*v, true, depth + 1);
      }
    }
  }

  ChatWriter& out_;
};

}  // namespace

void write_declaration(const Tool& tool, ChatWriter* out) {
  ToolWriter w(out);
  out->marker(&SpecialIds::tool_begin);
  out->text("declaration:" + tool.name + "{description:");
  w.quote(trim(tool.description));
  if (tool.parameters.is_object() && !tool.parameters.empty()) {
    out->text(",parameters:{");
    w.object_schema(tool.parameters, 0);
    out->text("}");
  }
  if (tool.response.is_object() && !tool.response.empty()) {
    out->text(",response:{");
    if (const std::string d = get_string(tool.response, "description", ""); !d.empty()) {
      out->text("description:");
      w.quote(d);
      out->text(",");
    }
    out->text("type:");
    w.quote(upper(get_string(tool.response, "type", "object")));
    out->text("}");
  }
  out->text("}");
  out->marker(&SpecialIds::tool_end);
}

void write_call(const ToolCall& call, ChatWriter* out) {
  if (!call.arguments.is_object()) {
    throw Error({"the arguments of a tool call must be an object",
                 {},
                 "call of " + call.name,
                 "{...}",
                 to_json_text(call.arguments).substr(0, 60),
                 {}});
  }
  out->marker(&SpecialIds::tool_call_begin);
  out->text("call:" + call.name + "{");
  ToolWriter(out).members(call.arguments, false, 0);
  out->text("}");
  out->marker(&SpecialIds::tool_call_end);
}

void write_response(std::string_view name, std::string_view text, ChatWriter* out) {
  out->marker(&SpecialIds::tool_response_begin);
  out->text("response:");
  out->text(name);
  out->text("{value:");
  ToolWriter(out).quote(text);
  out->text("}");
  out->marker(&SpecialIds::tool_response_end);
}

}  // namespace carat::text
