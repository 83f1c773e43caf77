#include "io/gguf_metadata.h"

#include <cmath>
#include <utility>

#include "base/error.h"
#include "io/names.h"

namespace carat::io {
namespace {

template <class T>
T load(const std::byte* at) {
  T v;
  std::memcpy(&v, at, sizeof(T));
  return v;
}

bool is_integer(GgufType t) {
  return t != GgufType::kF32 && t != GgufType::kF64 && t != GgufType::kBool &&
         t != GgufType::kString && t != GgufType::kArray;
}

// Element `index` of an integer value; nothing if it is above the range of int64_t.
std::optional<int64_t> int_at(const GgufValue& v, int64_t index) {
  const std::byte* at = v.bytes.data() + index * size_of(v.type);
  switch (v.type) {
    case GgufType::kU8:
      return load<uint8_t>(at);
    case GgufType::kI8:
      return load<int8_t>(at);
    case GgufType::kU16:
      return load<uint16_t>(at);
    case GgufType::kI16:
      return load<int16_t>(at);
    case GgufType::kU32:
      return load<uint32_t>(at);
    case GgufType::kI32:
      return load<int32_t>(at);
    case GgufType::kI64:
      return load<int64_t>(at);
    case GgufType::kU64: {
      const uint64_t u = load<uint64_t>(at);
      if (u > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(u);
    }
    default:
      break;
  }
  CHECK(is_integer(v.type));
  return std::nullopt;
}

double number_of(const GgufValue& v) {
  if (v.type == GgufType::kF32) return static_cast<double>(load<float>(v.bytes.data()));
  if (v.type == GgufType::kF64) return load<double>(v.bytes.data());
  if (v.type == GgufType::kU64) return static_cast<double>(load<uint64_t>(v.bytes.data()));
  return static_cast<double>(*int_at(v, 0));
}

std::string describe_type(const GgufValue& v) {
  if (!v.is_array) return name_of(v.type);
  return "array of " + std::to_string(v.count) + " " + name_of(v.type);
}

}  // namespace

const char* name_of(GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return "u8";
    case GgufType::kI8:
      return "i8";
    case GgufType::kU16:
      return "u16";
    case GgufType::kI16:
      return "i16";
    case GgufType::kU32:
      return "u32";
    case GgufType::kI32:
      return "i32";
    case GgufType::kF32:
      return "f32";
    case GgufType::kBool:
      return "bool";
    case GgufType::kString:
      return "string";
    case GgufType::kArray:
      return "array";
    case GgufType::kU64:
      return "u64";
    case GgufType::kI64:
      return "i64";
    case GgufType::kF64:
      return "f64";
  }
  return "unknown";
}

int64_t size_of(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

std::string describe(const GgufValue& v) {
  if (v.is_array) return describe_type(v);
  const std::string type = name_of(v.type);
  if (v.type == GgufType::kString) {
    return type + " " + in_quotes({reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size()});
  }
  if (v.type == GgufType::kBool) return type + (v.bytes[0] == std::byte{0} ? " false" : " true");
  if (v.type == GgufType::kU64) return type + " " + std::to_string(load<uint64_t>(v.bytes.data()));
  if (is_integer(v.type)) return type + " " + std::to_string(*int_at(v, 0));
  return type + " " + std::to_string(number_of(v));
}

GgufMetadata::GgufMetadata(std::string file, std::vector<Entry> entries)
    : file_(std::move(file)), entries_(std::move(entries)) {
  index_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    CHECK(index_.emplace(entries_[i].key, i).second);
  }
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries_[it->second].value;
}

void GgufMetadata::fail(std::string_view key, const char* what, std::string expected,
                        std::string got) const {
  throw Error({what, file_, "key " + in_quotes(key), std::move(expected), std::move(got), {}});
}

const GgufValue& GgufMetadata::need(std::string_view key) const {
  if (const GgufValue* v = find(key)) return *v;
  fail(key, "the key is missing", {}, {});
}

void GgufMetadata::check_count(std::string_view key, const GgufValue& v, int64_t count) const {
  if (count >= 0 && v.count != count) {
    fail(key, "the array has the wrong length", std::to_string(count) + " elements",
         std::to_string(v.count));
  }
}

const GgufValue& GgufMetadata::need_array(std::string_view key, GgufType type,
                                          int64_t count) const {
  const GgufValue& v = need(key);
  if (!v.is_array || v.type != type) {
    fail(key, "the value has the wrong type", std::string("array of ") + name_of(type),
         describe_type(v));
  }
  check_count(key, v, count);
  return v;
}

int64_t GgufMetadata::checked_int(std::string_view key, const GgufValue& v, int64_t index,
                                  int64_t lo, int64_t hi) const {
  const std::optional<int64_t> i = int_at(v, index);
  if (!i || *i < lo || *i > hi) {
    std::string got = i ? std::to_string(*i) : describe(v);
    if (v.is_array) got += " at element " + std::to_string(index);
    fail(key, "the value is out of range", std::to_string(lo) + " to " + std::to_string(hi), got);
  }
  return *i;
}

int64_t GgufMetadata::get_int(std::string_view key, int64_t lo, int64_t hi) const {
  const GgufValue& v = need(key);
  if (v.is_array || !is_integer(v.type)) {
    fail(key, "the value has the wrong type", "an integer", describe_type(v));
  }
  return checked_int(key, v, 0, lo, hi);
}

int64_t GgufMetadata::get_int(std::string_view key, int64_t lo, int64_t hi,
                              int64_t otherwise) const {
  return has(key) ? get_int(key, lo, hi) : otherwise;
}

double GgufMetadata::get_number(std::string_view key, double lo, double hi) const {
  const GgufValue& v = need(key);
  if (v.is_array || v.type == GgufType::kBool || v.type == GgufType::kString) {
    fail(key, "the value has the wrong type", "a number", describe_type(v));
  }
  const double d = number_of(v);
  if (!std::isfinite(d) || d < lo || d > hi) {
    fail(key, "the value is out of range", std::to_string(lo) + " to " + std::to_string(hi),
         std::to_string(d));
  }
  return d;
}

double GgufMetadata::get_number(std::string_view key, double lo, double hi,
                                double otherwise) const {
  return has(key) ? get_number(key, lo, hi) : otherwise;
}

bool GgufMetadata::get_bool(std::string_view key) const {
  const GgufValue& v = need(key);
  if (v.is_array || v.type != GgufType::kBool) {
    fail(key, "the value has the wrong type", "bool", describe_type(v));
  }
  return v.bytes[0] != std::byte{0};
}

bool GgufMetadata::get_bool(std::string_view key, bool otherwise) const {
  return has(key) ? get_bool(key) : otherwise;
}

std::string_view GgufMetadata::get_string(std::string_view key) const {
  const GgufValue& v = need(key);
  if (v.is_array || v.type != GgufType::kString) {
    fail(key, "the value has the wrong type", "string", describe_type(v));
  }
  return {reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size()};
}

std::string_view GgufMetadata::get_string(std::string_view key, std::string_view otherwise) const {
  return has(key) ? get_string(key) : otherwise;
}

GgufStrings GgufMetadata::get_strings(std::string_view key, int64_t count) const {
  const GgufValue& v = need_array(key, GgufType::kString, count);
  return {v.bytes, v.count};
}

std::vector<int32_t> GgufMetadata::get_ints(std::string_view key, int32_t lo, int32_t hi,
                                            int64_t count) const {
  const GgufValue& v = need(key);
  if (!v.is_array || !is_integer(v.type)) {
    fail(key, "the value has the wrong type", "array of integers", describe_type(v));
  }
  check_count(key, v, count);
  std::vector<int32_t> out(static_cast<size_t>(v.count));
  for (int64_t i = 0; i < v.count; ++i) {
    out[static_cast<size_t>(i)] = static_cast<int32_t>(checked_int(key, v, i, lo, hi));
  }
  return out;
}

std::vector<float> GgufMetadata::get_floats(std::string_view key, int64_t count) const {
  const GgufValue& v = need_array(key, GgufType::kF32, count);
  std::vector<float> out(static_cast<size_t>(v.count));
  if (!out.empty()) std::memcpy(out.data(), v.bytes.data(), v.bytes.size());
  return out;
}

std::vector<bool> GgufMetadata::get_bools(std::string_view key, int64_t count) const {
  const GgufValue& v = need_array(key, GgufType::kBool, count);
  std::vector<bool> out(static_cast<size_t>(v.count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = v.bytes[i] != std::byte{0};
  return out;
}

std::vector<int64_t> GgufMetadata::get_int_per_layer(std::string_view key, int64_t count,
                                                     int64_t lo, int64_t hi) const {
  const GgufValue& v = need(key);
  if (!is_integer(v.type)) {
    fail(key, "the value has the wrong type", "an integer or an array of integers",
         describe_type(v));
  }
  if (v.is_array) check_count(key, v, count);
  std::vector<int64_t> out(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    out[static_cast<size_t>(i)] = checked_int(key, v, v.is_array ? i : 0, lo, hi);
  }
  return out;
}

}  // namespace carat::io
