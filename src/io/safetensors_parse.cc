#include "io/safetensors_parse.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <unordered_set>

#include "base/checked.h"
#include "base/error.h"
#include "base/json_reader.h"
#include "io/names.h"

namespace carat::io {
namespace {

constexpr const char* kTruncated =
    "the file may be incomplete; compare its size or checksum with the published one";
constexpr size_t kMaxDims = 4;
constexpr int kHeaderDepth = 3;  // header, tensor, list
constexpr int kIndexDepth = 8;

std::string place_of(std::string_view name) { return "tensor " + in_quotes(name); }

[[noreturn]] void fail(std::string what, std::string expected, std::string got,
                       std::string hint = {}) {
  throw Error({std::move(what), {}, {}, std::move(expected), std::move(got), std::move(hint)});
}

// The same error with `place` before its own.
Error within(const std::string& place, const Error& e) {
  ErrorInfo info = e.info();
  info.place = place + (info.place.empty() ? "" : ", " + info.place);
  return Error(std::move(info));
}

void check_name(std::string_view name) {
  const char* fault = name_fault(name);
  if (!fault && static_cast<int64_t>(name.size()) > kSafetensorsMaxName) {
    fault = "the name is longer than 1024 bytes";
  }
  if (fault)
    throw Error({std::string("bad tensor name: ") + fault, {}, {}, {}, in_quotes(name), {}});
}

DType dtype_of(std::string_view name) {
  if (const auto t = dtype_from_safetensors(name)) return *t;
  fail("unsupported tensor type", "F32, F16, BF16, F64, I8, I16, I32, I64, U8 or BOOL",
       in_quotes(name), "use a checkpoint saved in one of these types");
}

Shape read_shape(JsonReader& in) {
  Shape shape;
  in.begin_array();
  while (in.next_element()) {
    if (shape.size() == kMaxDims) in.fail("too many dimensions", "at most 4");
    shape.push_back(in.integer(1, INT64_MAX));
  }
  return shape;
}

struct Offsets {
  int64_t begin = 0, end = 0;
};

Offsets read_offsets(JsonReader& in) {
  Offsets o;
  int64_t* const slots[] = {&o.begin, &o.end};
  size_t n = 0;
  in.begin_array();
  while (in.next_element()) {
    if (n == 2) in.fail("data_offsets are not a pair");
    *slots[n++] = in.integer(0, INT64_MAX);
  }
  if (n != 2) in.fail("data_offsets are not a pair");
  return o;
}

// One value of a tensor's object; a second one of the same key is refused.
template <class T, class F>
void read_once(JsonReader& in, const char* key, std::optional<T>& slot, F read) {
  if (slot) in.fail("a key appears twice in one object", {}, key);
  slot = read();
}

// `offset` of the result is from the start of the data section.
TensorEntry read_tensor(JsonReader& in, std::string name, int64_t data_bytes) {
  std::optional<DType> dtype;
  std::optional<Shape> shape;
  std::optional<Offsets> offsets;
  in.begin_object();
  for (std::string_view key; in.next_key(&key);) {
    if (key == "dtype") {
      read_once(in, "dtype", dtype, [&] { return dtype_of(in.string()); });
    } else if (key == "shape") {
      read_once(in, "shape", shape, [&] { return read_shape(in); });
    } else if (key == "data_offsets") {
      read_once(in, "data_offsets", offsets, [&] { return read_offsets(in); });
    } else {
      fail("unknown key", "dtype, shape and data_offsets", in_quotes(key));
    }
  }
  if (!dtype || !shape || !offsets) fail("a key is missing", "dtype, shape and data_offsets", {});

  TensorEntry t;
  t.name = std::move(name);
  t.dtype = *dtype;
  t.shape = *std::move(shape);
  const std::optional<int64_t> bytes = byte_count(t.dtype, t.shape);
  if (!bytes) fail("the tensor's size does not fit 64 bits", {}, carat::to_string(t.shape));
  if (offsets->begin > offsets->end) {
    fail("data_offsets end before they begin", {},
         std::to_string(offsets->begin) + " to " + std::to_string(offsets->end));
  }
  if (offsets->end > data_bytes) {
    fail("the tensor's data reaches past the end of the file",
         "an end of at most " + std::to_string(data_bytes), std::to_string(offsets->end),
         kTruncated);
  }
  if (offsets->end - offsets->begin != *bytes) {
    fail("data_offsets disagree with type and shape", std::to_string(*bytes) + " bytes",
         std::to_string(offsets->end - offsets->begin) + " bytes");
  }
  t.offset = offsets->begin;
  t.bytes = *bytes;
  return t;
}

std::vector<std::pair<std::string, std::string>> read_metadata(JsonReader& in) {
  std::vector<std::pair<std::string, std::string>> out;
  std::unordered_set<std::string> seen;
  in.begin_object();
  for (std::string_view key; in.next_key(&key);) {
    if (!seen.emplace(key).second) fail("a key appears twice in one object", {}, in_quotes(key));
    std::string name(key);
    out.emplace_back(std::move(name), in.string());
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

// Adds the member `name` of the header to `head`.
void read_member(JsonReader& in, std::string name, int64_t data_bytes, SafetensorsHead& head) {
  if (name == "__metadata__") {
    try {
      head.metadata = read_metadata(in);
    } catch (const Error& e) {
      throw within("key \"__metadata__\"", e);
    }
    return;
  }
  const std::string place = place_of(name);
  try {
    check_name(name);
    if (static_cast<int64_t>(head.entries.size()) == kSafetensorsMaxTensors) {
      fail("too many tensors", "at most " + std::to_string(kSafetensorsMaxTensors), {});
    }
    head.entries.push_back(read_tensor(in, std::move(name), data_bytes));
  } catch (const Error& e) {
    throw within(place, e);
  }
}

SafetensorsHead parse(const RandomAccessFile& file) {
  SafetensorsHead head;
  const std::string text = read_header_text(file);
  head.data_begin = 8 + static_cast<int64_t>(text.size());
  const int64_t data_bytes = file.size() - head.data_begin;
  try {
    JsonReader in(text, kHeaderDepth);
    std::unordered_set<std::string> seen;
    in.begin_object();
    for (std::string_view key; in.next_key(&key);) {
      std::string name(key);
      if (!seen.insert(name).second) {
        throw Error({"a tensor appears twice", {}, place_of(name), {}, {}, {}});
      }
      read_member(in, std::move(name), data_bytes, head);
    }
    in.end();
  } catch (const Error& e) {
    throw within("header", e);
  }
  check_contiguous(head.entries, data_bytes);
  for (TensorEntry& t : head.entries) t.offset += head.data_begin;
  return head;
}

// A name that cannot leave the folder it is looked up in.
void check_shard_name(std::string_view name) {
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
  // Files are numbered as they appear, then by name.
  std::map<std::string, int, std::less<>> files;
  SafetensorsIndex out;
  std::unordered_set<std::string> seen;
  const auto read_place = [&](JsonReader& in, std::string name) {
    check_name(name);
    if (!seen.insert(name).second) fail("a tensor appears twice", {}, {});
    const std::string_view file = in.string();
    check_shard_name(file);
    auto it = files.find(file);
    if (it == files.end()) it = files.emplace(file, static_cast<int>(files.size())).first;
    if (files.size() > static_cast<size_t>(kMaxShards)) {
      fail("too many files", "at most " + std::to_string(kMaxShards), {});
    }
    if (static_cast<int64_t>(out.tensors.size()) == kSafetensorsMaxTensors) {
      fail("too many tensors", "at most " + std::to_string(kSafetensorsMaxTensors), {});
    }
    out.tensors.push_back({std::move(name), it->second});
  };

  JsonReader in(text, kIndexDepth);
  bool found = false;
  in.begin_object();
  for (std::string_view key; in.next_key(&key);) {
    if (key != "weight_map") {
      in.skip();
      continue;
    }
    if (found) in.fail("a key appears twice in one object", {}, "weight_map");
    found = true;
    in.begin_object();
    for (std::string_view tensor; in.next_key(&tensor);) {
      std::string name(tensor);
      const std::string place = place_of(name);
      try {
        read_place(in, std::move(name));
      } catch (const Error& e) {
        throw within(place, e);
      }
    }
  }
  in.end();
  if (out.tensors.empty()) {
    throw Error({"the index names no tensors", {}, "key \"weight_map\"", {}, {}, {}});
  }
  std::vector<int> rank(files.size());
  for (const auto& [name, number] : files) {
    rank[static_cast<size_t>(number)] = static_cast<int>(out.files.size());
    out.files.push_back(name);
  }
  for (SafetensorsIndex::Tensor& t : out.tensors) t.file = rank[static_cast<size_t>(t.file)];
  return out;
}

}  // namespace carat::io
