// JSON with limits. The only place that knows the JSON library: everything else uses carat::Json
// and the checked getters below.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace carat {

// Keeps the order of keys, so that what we write is stable.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  int max_depth = 64;
  int64_t max_bytes = int64_t{100} << 20;
};

// Parses one JSON document. Throws Error (place "line L, column C" where known) on a syntax error,
// invalid UTF-8, nesting deeper than the limit, duplicate keys in one object, or trailing text.
Json parse_json(std::string_view text, const JsonLimits& limits = {});

// Reads and parses a file; errors carry its path.
Json read_json_file(const std::string& path, const JsonLimits& limits = {});

// Text of a value; invalid UTF-8 in strings becomes U+FFFD. indent < 0: one line.
std::string to_json_text(const Json& value, int indent = -1);

// Member `key` of object `j`, checked for presence, type and range; errors name the key.
// The variants with a default return it when the key is absent or null.
const Json& get(const Json& j, const char* key);
const Json* find(const Json& j, const char* key);  // nullptr if absent or null
int64_t get_int(const Json& j, const char* key, int64_t lo, int64_t hi);
int64_t get_int(const Json& j, const char* key, int64_t lo, int64_t hi, int64_t otherwise);
double get_number(const Json& j, const char* key, double lo, double hi);
double get_number(const Json& j, const char* key, double lo, double hi, double otherwise);
bool get_bool(const Json& j, const char* key, bool otherwise);
std::string get_string(const Json& j, const char* key);
std::string get_string(const Json& j, const char* key, const std::string& otherwise);

}  // namespace carat
