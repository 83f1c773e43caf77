#include "io/gguf_writer.h"

#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/gguf_parse.h"
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
                       std::vector<TensorSpec> specs, const WriteOptions& options)
    : GgufWriter(std::move(specs), options) {
  const Head head = lay_out(fields, path);
  file_ = add_file(path);
  for (const std::string* text : {&head.start, &fields.bytes(), &head.tensors}) {
    put(file_, std::as_bytes(std::span(*text)));
  }
}

GgufWriter::Head GgufWriter::lay_out(const GgufFields& fields, const std::string& path) {
  Head head;
  std::vector<Slot> slots;
  int64_t offset = 0;
  for (size_t i = 0; i < specs().size(); ++i) {
    const TensorSpec& spec = specs()[i];
    if (info(spec.dtype).gguf_id < 0) {
      throw Error({std::string("GGUF has no type ") + name_of(spec.dtype),
                   path,
                   "tensor " + in_quotes(spec.name),
                   {},
                   {},
                   {}});
    }
    put_tensor_info(head.tensors, spec, offset);
    slots.push_back({0, offset, spec_bytes(i)});
    const int64_t end = add_or_throw(offset, slots.back().bytes, "the size of the file");
    (void)add_or_throw(end, kGgufMaxAlignment, "the size of the file");
    offset = round_up(end, kGgufDefaultAlignment);
  }

  put_number(head.start, kGgufMagic);
  put_number(head.start, kGgufVersion);
  put_number(head.start, static_cast<int64_t>(specs().size()));
  put_number(head.start, fields.count());
  const size_t bytes = head.start.size() + fields.bytes().size() + head.tensors.size();
  const int64_t data_begin = round_up(static_cast<int64_t>(bytes), kGgufDefaultAlignment);
  for (Slot& s : slots) s.offset += data_begin;
  end_ = add_or_throw(data_begin, offset, "the size of the file");
  set_slots(std::move(slots));
  return head;
}

void GgufWriter::complete() { pad_to(file_, end_); }

int64_t gguf_file_bytes(const GgufFields& fields, std::vector<TensorSpec> specs) {
  GgufWriter writer(std::move(specs), {});
  (void)writer.lay_out(fields, {});
  return writer.end_;
}

}  // namespace carat::io
