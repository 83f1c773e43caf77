#include "base/json.h"

#include <cmath>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace carat {
namespace {

std::string place_of(std::string_view text, size_t byte) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i < text.size() && i < byte; ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else {
      ++column;
    }
  }
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

[[noreturn]] void fail_key(const char* key, const char* what, std::string expected,
                           std::string got) {
  throw Error({what, {}, std::string("key \"") + key + "\"", std::move(expected), std::move(got), {}});
}

std::string brief(const Json& v) {
  std::string s = v.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (s.size() > 60) s = s.substr(0, 57) + "...";
  return s;
}

}  // namespace

Json parse_json(std::string_view text, const JsonLimits& limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    throw Error({"the JSON text is too large", {}, {}, "at most " + std::to_string(limits.max_bytes) + " bytes",
                 std::to_string(text.size()) + " bytes", {}});
  }
  // The library takes a NUL byte for the end and would ignore what follows.
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw Error({"not valid JSON: a NUL byte", {}, place_of(text, nul), {}, {}, {}});
  }
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
    using E = Json::parse_event_t;
    if (depth > limits.max_depth) {
      throw Error({"the JSON text is nested too deeply", {}, {},
                   "at most " + std::to_string(limits.max_depth) + " levels", {}, {}});
    }
    if (event == E::object_start) keys.emplace_back();
    if (event == E::object_end && !keys.empty()) keys.pop_back();
    if (event == E::key && !keys.empty() &&
        !keys.back().insert(value.get_ref<const std::string&>()).second) {
      throw Error({"a key appears twice in one object", {}, "key \"" + value.get<std::string>() + "\"", {}, {}, {}});
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), callback);
  } catch (const Json::parse_error& e) {
    std::string what = e.what();
    if (const size_t colon = what.rfind(": "); colon != std::string::npos) what = what.substr(colon + 2);
    throw Error({"not valid JSON: " + what, {}, place_of(text, e.byte), {}, {}, {}});
  } catch (const Json::exception& e) {
    throw Error({std::string("not valid JSON: ") + e.what(), {}, {}, {}, {}, {}});
  }
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  const std::string text = read_text_file(path, limits.max_bytes);
  try {
    return parse_json(text, limits);
  } catch (const Error& e) {
    throw e.with_file(path);
  }
}

std::string to_json_text(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const Json* find(const Json& j, const char* key) {
  if (!j.is_object()) return nullptr;
  const auto it = j.find(key);
  return it == j.end() || it->is_null() ? nullptr : &*it;
}

const Json& get(const Json& j, const char* key) {
  if (const Json* v = find(j, key)) return *v;
  fail_key(key, "the key is missing", {}, {});
}

int64_t get_int(const Json& j, const char* key, int64_t lo, int64_t hi) {
  const Json& v = get(j, key);
  const std::string range = "an integer from " + std::to_string(lo) + " to " + std::to_string(hi);
  if (!v.is_number_integer()) fail_key(key, "not an integer", range, brief(v));
  if (v.is_number_unsigned()) {
    const uint64_t u = v.get<uint64_t>();
    if (u > static_cast<uint64_t>(INT64_MAX)) fail_key(key, "out of range", range, brief(v));
  }
  const int64_t i = v.get<int64_t>();
  if (i < lo || i > hi) fail_key(key, "out of range", range, brief(v));
  return i;
}

int64_t get_int(const Json& j, const char* key, int64_t lo, int64_t hi, int64_t otherwise) {
  return find(j, key) ? get_int(j, key, lo, hi) : otherwise;
}

double get_number(const Json& j, const char* key, double lo, double hi) {
  const Json& v = get(j, key);
  if (!v.is_number()) fail_key(key, "not a number", "a number", brief(v));
  const double d = v.get<double>();
  if (!std::isfinite(d) || d < lo || d > hi) {
    fail_key(key, "out of range", "from " + std::to_string(lo) + " to " + std::to_string(hi), brief(v));
  }
  return d;
}

double get_number(const Json& j, const char* key, double lo, double hi, double otherwise) {
  return find(j, key) ? get_number(j, key, lo, hi) : otherwise;
}

bool get_bool(const Json& j, const char* key, bool otherwise) {
  const Json* v = find(j, key);
  if (!v) return otherwise;
  if (!v->is_boolean()) fail_key(key, "not a boolean", "true or false", brief(*v));
  return v->get<bool>();
}

std::string get_string(const Json& j, const char* key) {
  const Json& v = get(j, key);
  if (!v.is_string()) fail_key(key, "not a string", "a string", brief(v));
  return v.get<std::string>();
}

std::string get_string(const Json& j, const char* key, const std::string& otherwise) {
  return find(j, key) ? get_string(j, key) : otherwise;
}

}  // namespace carat
