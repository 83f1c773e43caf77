#include "io/gguf_writer.h"

#include <unistd.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/gguf_parse.h"
#include "io/gguf_split.h"
#include "io/names.h"

namespace carat::io {
namespace {

template <class T>
void put_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void put_tensor_info(std::string& out, const TensorSpec& spec, int64_t offset) {
  put_number<uint64_t>(out, spec.name.size());
  out += spec.name;
  const Shape shape = spec.shape.empty() ? Shape{1} : spec.shape;
  put_number(out, static_cast<uint32_t>(shape.size()));
  for (size_t i = shape.size(); i-- > 0;) put_number<int64_t>(out, shape[i]);
  put_number(out, static_cast<int32_t>(info(spec.dtype).gguf_id));
  put_number<int64_t>(out, offset);
}

// The first tensor of every part.
std::vector<size_t> first_tensors(const std::vector<TensorSpec>& specs, int64_t max_part_bytes) {
  std::vector<size_t> firsts = {0};
  int64_t bytes = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    const std::optional<int64_t> own = byte_count(specs[i].dtype, specs[i].shape);
    if (!own) break;  // the writer says what is wrong with it
    if (i > firsts.back() && *own > max_part_bytes - bytes) {
      firsts.push_back(i);
      bytes = 0;
    }
    bytes = add_or_throw(bytes, *own, "the size of the file");
  }
  return firsts;
}

std::vector<std::string> paths_of(const std::string& path, size_t n) {
  if (n == 1) return {path};
  if (static_cast<int64_t>(n) > kGgufMaxParts) {
    throw Error({"the checkpoint would have too many files", path, "",
                 "at most " + std::to_string(kGgufMaxParts), std::to_string(n),
                 "allow larger files"});
  }
  const std::string stem = path.ends_with(".gguf") ? path.substr(0, path.size() - 5) : path;
  std::vector<std::string> paths;
  for (size_t i = 0; i < n; ++i) {
    paths.push_back(part_path(stem, static_cast<int64_t>(i), static_cast<int64_t>(n)));
  }
  return paths;
}

// The keys of one part of several.
GgufFields split_fields(size_t number, size_t count, size_t tensors) {
  GgufFields f;
  f.add_u16("split.no", static_cast<uint16_t>(number));
  f.add_u16("split.count", static_cast<uint16_t>(count));
  f.add_i32("split.tensors.count", static_cast<int32_t>(tensors));
  return f;
}

}  // namespace

void GgufFields::begin_key(std::string_view key, GgufType type) {
  CHECK(key != "general.alignment");
  const char* fault = name_fault(key);
  if (!fault && static_cast<int64_t>(key.size()) > kGgufMaxKeyBytes) {
    fault = "the key is too long";
  }
  if (fault) throw Error({std::string("bad key: ") + fault, {}, {}, {}, in_quotes(key), {}});
  CHECK(keys_.emplace(key).second);
  ++count_;
  put_text(key);
  put_number(bytes_, static_cast<uint32_t>(type));
}

void GgufFields::begin_array(std::string_view key, GgufType type, uint64_t count) {
  begin_key(key, GgufType::kArray);
  put_number(bytes_, static_cast<uint32_t>(type));
  put_number(bytes_, count);
}

void GgufFields::put_text(std::string_view text) {
  put_number<uint64_t>(bytes_, text.size());
  bytes_ += text;
}

void GgufFields::add_u16(std::string_view key, uint16_t value) {
  begin_key(key, GgufType::kU16);
  put_number(bytes_, value);
}

void GgufFields::add_u32(std::string_view key, uint32_t value) {
  begin_key(key, GgufType::kU32);
  put_number(bytes_, value);
}

void GgufFields::add_i32(std::string_view key, int32_t value) {
  begin_key(key, GgufType::kI32);
  put_number(bytes_, value);
}

void GgufFields::add_u64(std::string_view key, uint64_t value) {
  begin_key(key, GgufType::kU64);
  put_number(bytes_, value);
}

void GgufFields::add_f32(std::string_view key, float value) {
  begin_key(key, GgufType::kF32);
  put_number(bytes_, value);
}

void GgufFields::add_bool(std::string_view key, bool value) {
  begin_key(key, GgufType::kBool);
  bytes_ += static_cast<char>(value);
}

void GgufFields::add_string(std::string_view key, std::string_view value) {
  begin_key(key, GgufType::kString);
  put_text(value);
}

void GgufFields::add_u32s(std::string_view key, std::span<const uint32_t> values) {
  begin_array(key, GgufType::kU32, values.size());
  put(values.data(), values.size_bytes());
}

void GgufFields::add_i32s(std::string_view key, std::span<const int32_t> values) {
  begin_array(key, GgufType::kI32, values.size());
  put(values.data(), values.size_bytes());
}

void GgufFields::add_f32s(std::string_view key, std::span<const float> values) {
  begin_array(key, GgufType::kF32, values.size());
  put(values.data(), values.size_bytes());
}

void GgufFields::add_bools(std::string_view key, const std::vector<bool>& values) {
  begin_array(key, GgufType::kBool, values.size());
  for (const bool v : values) bytes_ += static_cast<char>(v);
}

void GgufFields::add_value(std::string_view key, const GgufValue& value) {
  if (value.is_array) {
    begin_array(key, value.type, static_cast<uint64_t>(value.count));
  } else {
    begin_key(key, value.type);
    if (value.type == GgufType::kString) put_number<uint64_t>(bytes_, value.bytes.size());
  }
  put(value.bytes.data(), value.bytes.size());
}

GgufWriter::GgufWriter(std::vector<TensorSpec> specs, const WriteOptions& options)
    : TensorWriter(std::move(specs), kGgufMaxTensorName, options) {}

GgufWriter::GgufWriter(const std::string& path, const GgufFields& fields,
                       std::vector<TensorSpec> specs, const WriteOptions& options,
                       int64_t max_part_bytes)
    : GgufWriter(std::move(specs), options) {
  const std::vector<size_t> firsts = first_tensors(this->specs(), max_part_bytes);
  const std::vector<std::string> paths = paths_of(path, firsts.size());
  const std::vector<Part> parts = lay_out(fields, firsts, path);
  for (size_t i = 0; i < parts.size(); ++i) {
    put(add_file(paths[i]), std::as_bytes(std::span(parts[i].head)));
    ends_.push_back(parts[i].end);
  }
}

std::string GgufWriter::describe(int file, size_t first, size_t last, const std::string& path,
                                 std::vector<Slot>* slots, int64_t* data_bytes) const {
  std::string text;
  int64_t offset = 0;
  for (size_t i = first; i < last; ++i) {
    const TensorSpec& spec = specs()[i];
    if (info(spec.dtype).gguf_id < 0) {
      throw Error({std::string("GGUF has no type ") + name_of(spec.dtype),
                   path,
                   "tensor " + in_quotes(spec.name),
                   {},
                   {},
                   {}});
    }
    put_tensor_info(text, spec, offset);
    slots->push_back({file, offset, spec_bytes(i)});
    const int64_t end = add_or_throw(offset, slots->back().bytes, "the size of the file");
    (void)add_or_throw(end, kGgufMaxAlignment, "the size of the file");
    offset = round_up(end, kGgufDefaultAlignment);
  }
  *data_bytes = offset;
  return text;
}

std::vector<GgufWriter::Part> GgufWriter::lay_out(const GgufFields& fields,
                                                  const std::vector<size_t>& firsts,
                                                  const std::string& path) {
  std::vector<Part> parts;
  std::vector<Slot> slots;
  const size_t n = firsts.size();
  for (size_t p = 0; p < n; ++p) {
    const size_t last = p + 1 < n ? firsts[p + 1] : specs().size();
    int64_t data_bytes = 0;
    const std::string tensors =
        describe(static_cast<int>(p), firsts[p], last, path, &slots, &data_bytes);
    const GgufFields split = n > 1 ? split_fields(p, n, specs().size()) : GgufFields();
    Part part;
    put_number(part.head, kGgufMagic);
    put_number(part.head, kGgufVersion);
    put_number(part.head, static_cast<int64_t>(last - firsts[p]));
    put_number(part.head, (p == 0 ? fields.count() : 0) + split.count());
    if (p == 0) part.head += fields.bytes();
    part.head += split.bytes() + tensors;
    const int64_t data_begin =
        round_up(static_cast<int64_t>(part.head.size()), kGgufDefaultAlignment);
    for (size_t i = firsts[p]; i < last; ++i) slots[i].offset += data_begin;
    part.end = add_or_throw(data_begin, data_bytes, "the size of the file");
    parts.push_back(std::move(part));
  }
  set_slots(std::move(slots));
  return parts;
}

void GgufWriter::complete() {
  for (size_t i = 0; i < ends_.size(); ++i) pad_to(static_cast<int>(i), ends_[i]);
}

// Without its first part a split file cannot be opened.
void GgufWriter::retract() {
  if (ends_.size() == 1) return;
  const std::string first = paths().front();
  if (::unlink(first.c_str()) == 0) flush_folder_of(first);
}

std::vector<std::string> gguf_paths(const std::string& path, const std::vector<TensorSpec>& specs,
                                    int64_t max_part_bytes) {
  return paths_of(path, first_tensors(specs, max_part_bytes).size());
}

int64_t gguf_file_bytes(const GgufFields& fields, std::vector<TensorSpec> specs) {
  GgufWriter writer(std::move(specs), {});
  return writer.lay_out(fields, {0}, {}).front().end;
}

}  // namespace carat::io
