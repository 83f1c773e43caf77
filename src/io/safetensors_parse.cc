#include "io/safetensors_parse.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "io/names.h"

namespace carat::io {
namespace {

constexpr const char* kTruncated =
    "the file may be incomplete; compare its size or checksum with the published one";
constexpr int kMaxDims = 4;
constexpr int kHeaderDepth = 4;  // document, tensor, list, and one to spare

std::string place_of(std::string_view name) { return "tensor " + in_quotes(name); }

[[noreturn]] void fail(std::string what, std::string expected, std::string got,
                       std::string hint = {}) {
  throw Error({std::move(what), {}, {}, std::move(expected), std::move(got), std::move(hint)});
}

// A JSON integer in [0, 2^63), or nothing.
std::optional<int64_t> as_size(const Json& v) {
  if (!v.is_number_unsigned()) return std::nullopt;
  const uint64_t u = v.get<uint64_t>();
  if (u > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(u);
}

void check_name(const std::string& name) {
  const char* fault = name_fault(name);
  if (!fault && static_cast<int64_t>(name.size()) > kSafetensorsMaxName) {
    fault = "the name is longer than 1024 bytes";
  }
  if (fault)
    throw Error({std::string("bad tensor name: ") + fault, {}, {}, {}, in_quotes(name), {}});
}

DType read_dtype(const Json& tensor) {
  const std::string name = get_string(tensor, "dtype");
  if (const auto t = dtype_from_safetensors(name)) return *t;
  fail("unsupported tensor type", "F32, F16, BF16, F64, I8, I16, I32, I64, U8 or BOOL",
       in_quotes(name), "use a checkpoint saved in one of these types");
}

Shape read_shape(const Json& tensor) {
  const Json& list = get(tensor, "shape");
  if (!list.is_array()) fail("the shape is not a list", {}, {});
  if (list.size() > kMaxDims) {
    fail("bad number of dimensions", "at most 4", std::to_string(list.size()));
  }
  Shape shape;
  for (const Json& v : list) {
    const auto d = as_size(v);
    if (!d || *d == 0)
      fail("a dimension is not a positive integer", {}, in_quotes(to_json_text(v)));
    shape.push_back(*d);
  }
  return shape;
}

// Begin and end within the data section of `data_bytes`.
std::pair<int64_t, int64_t> read_offsets(const Json& tensor, int64_t data_bytes) {
  const Json& list = get(tensor, "data_offsets");
  std::optional<int64_t> begin, end;
  if (list.is_array() && list.size() == 2) {
    begin = as_size(list[0]);
    end = as_size(list[1]);
  }
  if (!begin || !end || *begin > *end) {
    fail("bad data_offsets", "[begin, end]", in_quotes(to_json_text(list)));
  }
  if (*end > data_bytes) {
    fail("the tensor's data reaches past the end of the file",
         "an end of at most " + std::to_string(data_bytes), std::to_string(*end), kTruncated);
  }
  return {*begin, *end};
}

// `offset` of the result is from the start of the data section.
TensorEntry read_tensor(const std::string& name, const Json& tensor, int64_t data_bytes) {
  if (!tensor.is_object()) fail("the tensor's entry is not an object", {}, {});
  TensorEntry t;
  t.name = name;
  t.dtype = read_dtype(tensor);
  t.shape = read_shape(tensor);
  const std::optional<int64_t> bytes = byte_count(t.dtype, t.shape);
  if (!bytes) fail("the tensor's size does not fit 64 bits", {}, carat::to_string(t.shape));
  const auto [begin, end] = read_offsets(tensor, data_bytes);
  if (end - begin != *bytes) {
    fail("data_offsets disagree with type and shape", std::to_string(*bytes) + " bytes",
         std::to_string(end - begin) + " bytes");
  }
  t.offset = begin;
  t.bytes = *bytes;
  return t;
}

std::vector<std::pair<std::string, std::string>> read_metadata(const Json& object) {
  if (!object.is_object()) {
    throw Error({"not an object", {}, "key \"__metadata__\"", {}, {}, {}});
  }
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_string()) {
      throw Error({"a value is not a string", {}, "key \"__metadata__\"", {}, in_quotes(key), {}});
    }
    out.emplace_back(key, value.get<std::string>());
  }
  return out;
}

// Sorts by place and proves that the tensors fill the data section without gap or overlap.
void check_contiguous(std::vector<TensorEntry>& entries, int64_t data_bytes) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TensorEntry& a, const TensorEntry& b) { return a.offset < b.offset; });
  int64_t end = 0;
  for (const TensorEntry& t : entries) {
    if (t.offset != end) {
      throw Error(
          {t.offset < end ? "two tensors overlap" : "there is a gap before the tensor's data",
           {},
           place_of(t.name),
           "data from offset " + std::to_string(end),
           std::to_string(t.offset),
           {}});
    }
    end += t.bytes;
  }
  if (end != data_bytes) {
    throw Error({"the data section has bytes that belong to no tensor",
                 {},
                 {},
                 std::to_string(end) + " bytes of data",
                 std::to_string(data_bytes) + " bytes",
                 {}});
  }
}

std::string read_header_text(const RandomAccessFile& file) {
  if (file.size() < 8) {
    fail("too small for a safetensors file", "at least 8 bytes",
         std::to_string(file.size()) + " bytes", kTruncated);
  }
  uint64_t n;
  file.read(0, std::as_writable_bytes(std::span(&n, 1)));
  const int64_t most = std::min(kSafetensorsMaxHeader, file.size() - 8);
  if (n < 2 || n > static_cast<uint64_t>(most)) {
    throw Error({"the header's length is out of range",
                 {},
                 "byte 0",
                 "2 to " + std::to_string(most) + " bytes",
                 std::to_string(n),
                 n <= static_cast<uint64_t>(kSafetensorsMaxHeader)
                     ? kTruncated
                     : "this may not be a safetensors file"});
  }
  std::string text(static_cast<size_t>(n), '\0');
  file.read(8, std::as_writable_bytes(std::span(text)));
  if (text[0] != '{') {
    throw Error({"the header is not a JSON object",
                 {},
                 "byte 8",
                 "{",
                 in_quotes(text.substr(0, 1)),
                 "this may not be a safetensors file"});
  }
  return text;
}

SafetensorsHead parse(const RandomAccessFile& file) {
  SafetensorsHead head;
  Json header;
  {
    const std::string text = read_header_text(file);
    head.data_begin = 8 + static_cast<int64_t>(text.size());
    try {
      header = parse_json(text, {.max_depth = kHeaderDepth, .max_bytes = kSafetensorsMaxHeader});
    } catch (const Error& e) {
      ErrorInfo info = e.info();
      info.place = "header" + (info.place.empty() ? "" : ", " + info.place);
      throw Error(std::move(info));
    }
  }
  if (!header.is_object()) fail("the header is not a JSON object", {}, {});
  if (static_cast<int64_t>(header.size()) > kSafetensorsMaxTensors) {
    fail("too many tensors", "at most " + std::to_string(kSafetensorsMaxTensors),
         std::to_string(header.size()));
  }
  const int64_t data_bytes = file.size() - head.data_begin;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      head.metadata = read_metadata(value);
      continue;
    }
    try {
      check_name(name);
      head.entries.push_back(read_tensor(name, value, data_bytes));
    } catch (const Error& e) {
      ErrorInfo info = e.info();
      info.place = place_of(name) + (info.place.empty() ? "" : ", " + info.place);
      throw Error(std::move(info));
    }
  }
  check_contiguous(head.entries, data_bytes);
  for (TensorEntry& t : head.entries) t.offset += head.data_begin;
  return head;
}

// A name that cannot leave the folder it is looked up in.
void check_shard_name(const std::string& name) {
  const char* fault = name_fault(name);
  if (!fault && name.find_first_of("/\\:") != std::string::npos) {
    fault = "the name contains a path separator";
  }
  if (!fault && (name.front() == '.' || name.size() > 255 || !name.ends_with(".safetensors"))) {
    fault = "the name is not that of a .safetensors file";
  }
  if (fault) {
    throw Error(
        {std::string("bad file name: ") + fault, {}, {}, "a plain file name", in_quotes(name), {}});
  }
}

}  // namespace

SafetensorsHead parse_safetensors(const RandomAccessFile& file) {
  try {
    return parse(file);
  } catch (const Error& e) {
    throw e.with_file(file.path());
  }
}

SafetensorsIndex parse_safetensors_index(std::string_view text) {
  const Json index = parse_json(text, {.max_depth = 8, .max_bytes = kSafetensorsMaxHeader});
  const Json& map = get(index, "weight_map");
  if (!map.is_object() || map.empty()) {
    throw Error({"not an object that names tensors", {}, "key \"weight_map\"", {}, {}, {}});
  }
  SafetensorsIndex out;
  std::map<std::string, int> files;
  for (const auto& [name, file] : map.items()) {
    try {
      check_name(name);
      if (!file.is_string()) fail("the file is not a string", {}, {});
      const std::string& file_name = file.get_ref<const std::string&>();
      check_shard_name(file_name);
      files.emplace(file_name, 0);
    } catch (const Error& e) {
      throw e.with_place(place_of(name));
    }
  }
  if (files.size() > kMaxShards) {
    fail("too many files", "at most " + std::to_string(kMaxShards), std::to_string(files.size()));
  }
  for (auto& [name, number] : files) {
    number = static_cast<int>(out.files.size());
    out.files.push_back(name);
  }
  for (const auto& [name, file] : map.items()) {
    out.tensors.push_back({name, files.at(file.get_ref<const std::string&>())});
  }
  return out;
}

}  // namespace carat::io
