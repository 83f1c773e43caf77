#include "io/gguf_parse.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/names.h"

namespace carat::io {
namespace {

constexpr const char* kTruncated =
    "the file may be incomplete; compare its size or checksum with the published one";
constexpr const char* kDamaged = "the file is damaged or was not written as GGUF version 3";

// Smallest encodings, so that a count can be refused before anything is made for it.
constexpr int64_t kLeastKeyBytes = 8 + 1 + 4 + 1;
constexpr int64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

std::string at_byte(int64_t offset) { return "byte " + std::to_string(offset); }

// Reads forwards; every read is checked against what is left.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  int64_t position() const { return position_; }
  int64_t remaining() const { return static_cast<int64_t>(bytes_.size()) - position_; }

  std::span<const std::byte> take(int64_t n, const char* what) {
    if (n > remaining()) {
      throw Error({std::string("the file ends inside ") + what,
                   {},
                   at_byte(position_),
                   std::to_string(n) + " bytes",
                   std::to_string(remaining()) + " bytes",
                   kTruncated});
    }
    const auto span = bytes_.subspan(static_cast<size_t>(position_), static_cast<size_t>(n));
    position_ += n;
    return span;
  }

  template <class T>
  T number(const char* what) {
    T v;
    std::memcpy(&v, take(sizeof(T), what).data(), sizeof(T));
    return v;
  }

  // A 64-bit length and that many bytes, at most `limit`.
  std::string_view text(int64_t limit, const char* what) {
    const int64_t at = position_;
    const uint64_t n = number<uint64_t>(what);
    const uint64_t most = static_cast<uint64_t>(std::min(limit, remaining()));
    if (n > most) {
      throw Error({std::string("the length of ") + what + " is too large",
                   {},
                   at_byte(at),
                   "at most " + std::to_string(most) + " bytes",
                   std::to_string(n) + " bytes",
                   n <= static_cast<uint64_t>(limit) ? kTruncated : kDamaged});
    }
    const auto span = take(static_cast<int64_t>(n), what);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  int64_t position_ = 0;
};

int64_t read_count(Cursor& in, const char* what, int64_t limit) {
  const int64_t at = in.position();
  const int64_t n = in.number<int64_t>(what);
  if (n < 0 || n > limit) {
    throw Error({std::string("the number of ") + what + " is out of range",
                 {},
                 at_byte(at),
                 "0 to " + std::to_string(limit),
                 std::to_string(n),
                 kDamaged});
  }
  return n;
}

// `n` things of at least `least` bytes each must still fit in the file.
void check_fits(const Cursor& in, int64_t n, int64_t least, const char* what) {
  if (n > in.remaining() / least) {
    throw Error({std::string("the file is too small for ") + what,
                 {},
                 at_byte(in.position()),
                 "at most " + std::to_string(in.remaining() / least),
                 std::to_string(n),
                 kTruncated});
  }
}

GgufType read_type(Cursor& in, const char* what) {
  const int64_t at = in.position();
  const uint32_t id = in.number<uint32_t>(what);
  if (id > static_cast<uint32_t>(GgufType::kF64)) {
    throw Error({"unknown value type", {}, at_byte(at), "0 to 12", std::to_string(id), kDamaged});
  }
  return static_cast<GgufType>(id);
}

void check_bools(std::span<const std::byte> bytes) {
  for (const std::byte b : bytes) {
    if (b > std::byte{1}) {
      throw Error({"a boolean is neither 0 nor 1",
                   {},
                   {},
                   "0 or 1",
                   std::to_string(std::to_integer<int>(b)),
                   kDamaged});
    }
  }
}

GgufValue read_array(Cursor& in) {
  constexpr const char* what = "an array";
  GgufValue v;
  v.is_array = true;
  v.type = read_type(in, what);
  if (v.type == GgufType::kArray) {
    throw Error({"an array of arrays is not accepted", {}, at_byte(in.position()), {}, {}, {}});
  }
  const int64_t at = in.position();
  const uint64_t n = in.number<uint64_t>("the length of an array");
  const int64_t least = v.type == GgufType::kString ? 8 : size_of(v.type);
  if (n > static_cast<uint64_t>(in.remaining() / least)) {
    throw Error({"the array is longer than the file",
                 {},
                 at_byte(at),
                 "at most " + std::to_string(in.remaining() / least) + " elements",
                 std::to_string(n) + " elements",
                 kTruncated});
  }
  v.count = static_cast<int64_t>(n);
  if (v.type != GgufType::kString) {
    v.bytes = in.take(v.count * size_of(v.type), what);
    if (v.type == GgufType::kBool) check_bools(v.bytes);
    return v;
  }
  Cursor start = in;
  for (int64_t i = 0; i < v.count; ++i) (void)in.text(INT64_MAX, "a string of an array");
  v.bytes = start.take(in.position() - start.position(), what);
  return v;
}

GgufValue read_value(Cursor& in) {
  const GgufType type = read_type(in, "a value type");
  if (type == GgufType::kArray) return read_array(in);
  GgufValue v;
  v.type = type;
  if (type == GgufType::kString) {
    const std::string_view s = in.text(INT64_MAX, "a string value");
    v.bytes = std::as_bytes(std::span(s));
    return v;
  }
  v.bytes = in.take(size_of(type), "a value");
  if (type == GgufType::kBool) check_bools(v.bytes);
  return v;
}

std::vector<GgufMetadata::Entry> read_metadata(Cursor& in, int64_t count) {
  std::vector<GgufMetadata::Entry> entries;
  std::unordered_set<std::string_view> seen;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = in.position();
    const std::string_view key = in.text(kGgufMaxKeyBytes, "a key");
    if (const char* fault = name_fault(key)) {
      throw Error(
          {std::string("bad key: ") + fault, {}, at_byte(at), {}, in_quotes(key), kDamaged});
    }
    if (!seen.insert(key).second) {
      throw Error({"a key appears twice", {}, "key " + in_quotes(key), {}, {}, kDamaged});
    }
    try {
      entries.push_back({key, read_value(in)});
    } catch (const Error& e) {
      ErrorInfo info = e.info();
      info.place = "key " + in_quotes(key) + (info.place.empty() ? "" : ", " + info.place);
      throw Error(std::move(info));
    }
  }
  return entries;
}

// Types that ggml knows and carat does not, with what to take in their place.
struct RefusedType {
  int id;
  const char* name;
  const char* hint;
};

constexpr const char* kCodebook =
    "its values come from tables of codes that carat does not have; use a file of about the same "
    "size in ";
constexpr const char* kTernary = "it is for models trained with three values; use a file in Q2_K";
constexpr const char* kActivation = "it is a type of activations and is never stored";
constexpr RefusedType kRefused[] = {
    {9, "Q8_1", kActivation},
    {15, "Q8_K", kActivation},
    {16, "IQ2_XXS", kCodebook},
    {17, "IQ2_XS", kCodebook},
    {18, "IQ3_XXS", kCodebook},
    {19, "IQ1_S", kCodebook},
    {21, "IQ3_S", kCodebook},
    {22, "IQ2_S", kCodebook},
    {29, "IQ1_M", kCodebook},
    {34, "TQ1_0", kTernary},
    {35, "TQ2_0", kTernary},
    {40, "NVFP4", "use a file in MXFP4, Q4_0 or Q4_K"},
    {41, "Q1_0", "use a file in Q2_K"},
    {42, "Q2_0", "use a file in Q2_K"},
};

std::string hint_for(const RefusedType& type) {
  if (type.hint != kCodebook) return type.hint;
  return std::string(kCodebook) + (type.name[2] == '3' ? "Q3_K or IQ4_XS" : "Q2_K");
}

DType read_dtype(Cursor& in) {
  const int32_t id = in.number<int32_t>("a tensor's type");
  if (const auto t = dtype_from_gguf(id)) return *t;
  for (const RefusedType& type : kRefused) {
    if (type.id != id) continue;
    throw Error({std::string("tensor type ") + type.name + " (id " + std::to_string(id) +
                     ") is not supported",
                 {},
                 {},
                 {},
                 {},
                 hint_for(type)});
  }
  throw Error({"unknown tensor type",
               {},
               {},
               "a ggml type id",
               std::to_string(id),
               "the file is damaged, or newer than this program, or uses a type that was removed"});
}

Shape read_shape(Cursor& in) {
  const uint32_t n = in.number<uint32_t>("a tensor's number of dimensions");
  if (n < 1 || n > kMaxDims) {
    throw Error({"bad number of dimensions", {}, {}, "1 to 4", std::to_string(n), kDamaged});
  }
  Shape shape(n);
  for (uint32_t i = 0; i < n; ++i) {
    const int64_t d = in.number<int64_t>("a tensor's shape");
    if (d <= 0) {
      throw Error(
          {"a dimension is not positive", {}, {}, "at least 1", std::to_string(d), kDamaged});
    }
    shape[n - 1 - i] = d;  // the file lists the fastest dimension first
  }
  return shape;
}

// Everything but the place in the file; `offset` is from the start of the data section.
TensorEntry read_tensor(Cursor& in, const std::string& name) {
  TensorEntry t;
  t.name = name;
  t.shape = read_shape(in);
  t.dtype = read_dtype(in);
  const std::optional<int64_t> bytes = byte_count(t.dtype, t.shape);
  if (!bytes) {
    const DTypeInfo& i = info(t.dtype);
    if (t.shape.back() % i.block_elements != 0) {
      throw Error({"a row is not a whole number of blocks",
                   {},
                   {},
                   "a multiple of " + std::to_string(i.block_elements) + " for " + i.name,
                   std::to_string(t.shape.back()),
                   kDamaged});
    }
    throw Error({"the tensor's size does not fit 64 bits",
                 {},
                 {},
                 {},
                 carat::to_string(t.shape),
                 kDamaged});
  }
  t.bytes = *bytes;
  const uint64_t offset = in.number<uint64_t>("a tensor's offset");
  if (offset > static_cast<uint64_t>(INT64_MAX)) {
    throw Error(
        {"the tensor's offset does not fit 63 bits", {}, {}, {}, std::to_string(offset), kDamaged});
  }
  t.offset = static_cast<int64_t>(offset);
  return t;
}

std::string place_of(const std::string& name) { return "tensor " + in_quotes(name); }

std::vector<TensorEntry> read_tensors(Cursor& in, int64_t count) {
  std::vector<TensorEntry> entries;
  std::unordered_set<std::string> seen;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = in.position();
    const std::string name(in.text(kGgufMaxTensorName, "a tensor name"));
    if (const char* fault = name_fault(name)) {
      throw Error({std::string("bad tensor name: ") + fault,
                   {},
                   at_byte(at),
                   {},
                   in_quotes(name),
                   kDamaged});
    }
    if (!seen.insert(name).second) {
      throw Error({"a tensor appears twice", {}, place_of(name), {}, {}, kDamaged});
    }
    try {
      entries.push_back(read_tensor(in, name));
    } catch (const Error& e) {
      throw e.with_place(place_of(name));
    }
  }
  return entries;
}

int64_t alignment_of(const GgufMetadata& metadata) {
  const GgufValue* v = metadata.find("general.alignment");
  if (!v) return kGgufDefaultAlignment;
  const int64_t a = metadata.get_int("general.alignment", 8, kGgufMaxAlignment);
  if ((a & (a - 1)) != 0) {
    throw Error({"the alignment is not a power of two",
                 {},
                 "key \"general.alignment\"",
                 "a power of two from 8 to 1048576",
                 std::to_string(a),
                 kDamaged});
  }
  return a;
}

GgufSplit split_of(const GgufMetadata& m, int64_t n_tensors) {
  GgufSplit split;
  // llama-gguf-split leaves 0 in a file that it merged.
  split.count = std::max<int64_t>(1, m.get_int("split.count", 0, kGgufMaxParts, 1));
  if (split.count > 1) split.number = m.get_int("split.no", 0, split.count - 1);
  split.tensors = m.get_int("split.tensors.count", n_tensors, kGgufMaxTensors, -1);
  return split;
}

// Turns offsets into places in the file, sorts by them, and proves that the tensors lie inside the
// file without overlap.
void place_tensors(GgufHead& head, int64_t file_size) {
  for (TensorEntry& t : head.entries) {
    if (t.offset % head.alignment != 0) {
      throw Error({"the tensor's offset is not aligned",
                   {},
                   place_of(t.name),
                   "a multiple of " + std::to_string(head.alignment),
                   std::to_string(t.offset),
                   kDamaged});
    }
    const auto begin = checked_add(head.data_begin, t.offset);
    const auto end = begin ? checked_add(*begin, t.bytes) : std::nullopt;
    if (!end || *end > file_size) {
      throw Error({"the tensor's data reaches past the end of the file",
                   {},
                   place_of(t.name),
                   "an end at or before byte " + std::to_string(file_size),
                   std::to_string(t.bytes) + " bytes from offset " + std::to_string(t.offset) +
                       " of the data at byte " + std::to_string(head.data_begin),
                   kTruncated});
    }
    t.offset = *begin;
  }
  std::stable_sort(head.entries.begin(), head.entries.end(),
                   [](const TensorEntry& a, const TensorEntry& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < head.entries.size(); ++i) {
    const TensorEntry& a = head.entries[i - 1];
    const TensorEntry& b = head.entries[i];
    if (a.offset + a.bytes > b.offset) {
      throw Error({"two tensors overlap",
                   {},
                   place_of(b.name),
                   {},
                   "shares bytes with " + in_quotes(a.name),
                   kDamaged});
    }
  }
}

void check_start(Cursor& in) {
  const uint32_t magic = in.number<uint32_t>("the magic number");
  if (magic != kGgufMagic) {
    throw Error({"not a GGUF file", {}, "byte 0", "the letters GGUF", {}, {}});
  }
  const uint32_t version = in.number<uint32_t>("the version");
  if (version == kGgufVersion) return;
  const bool swapped = version == __builtin_bswap32(kGgufVersion);
  throw Error({swapped ? "big-endian GGUF files are not supported" : "unsupported GGUF version",
               {},
               "byte 4",
               "version 3, little-endian",
               swapped ? "" : std::to_string(version),
               version == 1 || version == 2 ? "convert the model again with a current tool" : ""});
}

GgufHead parse(std::span<const std::byte> bytes, const std::string& path) {
  Cursor in(bytes);
  check_start(in);
  const int64_t n_tensors = read_count(in, "tensors", kGgufMaxTensors);
  const int64_t n_keys = read_count(in, "keys", kGgufMaxKeys);
  check_fits(in, n_keys, kLeastKeyBytes, "its keys");
  check_fits(in, n_tensors, kLeastTensorBytes, "its tensors");

  GgufHead head;
  head.metadata = GgufMetadata(path, read_metadata(in, n_keys));
  head.alignment = alignment_of(head.metadata);
  head.split = split_of(head.metadata, n_tensors);
  check_fits(in, n_tensors, kLeastTensorBytes, "its tensors");
  head.entries = read_tensors(in, n_tensors);
  head.data_begin = round_up(in.position(), head.alignment);
  place_tensors(head, static_cast<int64_t>(bytes.size()));
  return head;
}

}  // namespace

GgufHead parse_gguf(std::span<const std::byte> bytes, const std::string& path) {
  try {
    return parse(bytes, path);
  } catch (const Error& e) {
    throw e.with_file(path);
  }
}

}  // namespace carat::io
