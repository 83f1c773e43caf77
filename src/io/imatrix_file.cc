#include "io/imatrix_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_parse.h"
#include "io/gguf_writer.h"
#include "io/names.h"

namespace carat::io {
namespace {

constexpr const char* kSums = ".in_sum2";
constexpr const char* kCounts = ".counts";
constexpr int64_t kMaxDatasetBytes = 65535;
constexpr int64_t kMaxU32 = std::numeric_limits<uint32_t>::max();
constexpr int64_t kMaxI32 = std::numeric_limits<int32_t>::max();

std::string range_text(int64_t lo, int64_t hi) {
  return std::to_string(lo) + " to " + std::to_string(hi);
}

void check_values(const std::vector<float>& values, const char* what, const std::string& name) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i]) && values[i] >= 0) continue;
    throw Error({std::string(what) + " is negative or not finite",
                 {},
                 "entry " + in_quotes(name),
                 "a number of 0 or more",
                 std::to_string(values[i]) + " at " + std::to_string(i),
                 {}});
  }
}

// Sorts by name and refuses a name that appears twice.
void sort_entries(std::vector<ImatrixEntry>& entries) {
  std::sort(entries.begin(), entries.end(),
            [](const ImatrixEntry& a, const ImatrixEntry& b) { return a.name < b.name; });
  for (size_t i = 1; i < entries.size(); ++i) {
    if (entries[i].name == entries[i - 1].name) {
      throw Error(
          {"an entry appears twice", {}, "entry " + in_quotes(entries[i].name), {}, {}, {}});
    }
  }
}

// -- the binary file -----------------------------------------------------------------------------

class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  int64_t remaining() const { return static_cast<int64_t>(bytes_.size()) - position_; }

  std::span<const std::byte> take(int64_t n, const char* what) {
    if (n > remaining()) {
      throw Error(
          {std::string("the file ends inside ") + what,
           {},
           "byte " + std::to_string(position_),
           std::to_string(n) + " bytes",
           std::to_string(remaining()) + " bytes",
           "neither an importance matrix in GGUF nor a whole one in llama.cpp's .dat form"});
    }
    const auto span = bytes_.subspan(static_cast<size_t>(position_), static_cast<size_t>(n));
    position_ += n;
    return span;
  }

  // A 32-bit number within [lo, hi].
  int64_t number(int64_t lo, int64_t hi, const char* what) {
    const int64_t at = position_;
    int32_t v;
    std::memcpy(&v, take(4, what).data(), 4);
    if (v < lo || v > hi) {
      throw Error({std::string(what) + " is out of range",
                   {},
                   "byte " + std::to_string(at),
                   range_text(lo, hi),
                   std::to_string(v),
                   "not an importance matrix, or a damaged one"});
    }
    return v;
  }

  std::string text(int64_t least, int64_t most, const char* what) {
    const int64_t n = number(least, most, what);
    const auto span = take(n, what);
    return {reinterpret_cast<const char*>(span.data()), span.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  int64_t position_ = 0;
};

ImatrixEntry read_binary_entry(Cursor& in) {
  ImatrixEntry e;
  e.name = in.text(1, kGgufMaxTensorName, "the length of a name");
  if (const char* fault = name_fault(e.name)) {
    throw Error({fault, {}, "entry " + in_quotes(e.name), {}, {}, {}});
  }
  e.counts = {static_cast<float>(in.number(0, kMaxI32, "a number of chunks"))};
  const int64_t n = in.number(1, kMaxI32, "a number of values");
  const auto bytes = in.take(4 * n, "the values of an entry");
  e.sums.resize(static_cast<size_t>(n));
  std::memcpy(e.sums.data(), bytes.data(), bytes.size());
  check_values(e.sums, "a value", e.name);
  return e;
}

Imatrix parse_binary(std::span<const std::byte> bytes) {
  // Of an entry: two lengths, a letter, a number of chunks and a value.
  constexpr int64_t kLeastEntryBytes = 4 + 1 + 4 + 4 + 4;
  Cursor in(bytes);
  Imatrix m;
  const auto most =
      std::clamp<int64_t>((in.remaining() - 4) / kLeastEntryBytes, 1, kGgufMaxTensors);
  const int64_t n = in.number(1, most, "the number of entries");
  for (int64_t i = 0; i < n; ++i) m.entries.push_back(read_binary_entry(in));
  sort_entries(m.entries);
  if (in.remaining() == 0) return m;  // the oldest files end here
  m.chunk_count = in.number(0, kMaxI32, "the number of chunks");
  if (in.remaining() == 0) return m;
  std::string dataset = in.text(0, kMaxDatasetBytes, "the length of the dataset's name");
  if (!dataset.empty()) m.datasets.push_back(std::move(dataset));
  if (in.remaining() > 0) {
    throw Error({"the file goes on behind its end",
                 {},
                 {},
                 "0 bytes",
                 std::to_string(in.remaining()) + " bytes",
                 "not an importance matrix, or a damaged one"});
  }
  return m;
}

void write_binary(const std::string& path, const Imatrix& m) {
  AtomicFile file(path);
  const auto put = [&](int64_t v) {
    const auto n = static_cast<int32_t>(std::min(v, kMaxI32));
    file.write(std::as_bytes(std::span(&n, 1)));
  };
  const auto put_text = [&](const std::string& s) {
    put(static_cast<int64_t>(s.size()));
    file.write(s);
  };
  const double unit = static_cast<double>(std::max<int64_t>(m.chunk_size, 1));
  put(static_cast<int64_t>(m.entries.size()));
  for (const ImatrixEntry& e : m.entries) {
    const float most = *std::max_element(e.counts.begin(), e.counts.end());
    const auto chunks = static_cast<int64_t>(std::ceil(std::min<double>(most, 1e15) / unit));
    put_text(e.name);
    put(chunks);
    put(static_cast<int64_t>(e.sums.size()));
    std::vector<float> values = e.means();
    for (float& v : values) v *= static_cast<float>(chunks);
    file.write(std::as_bytes(std::span(values)));
  }
  put(m.chunk_count);
  put_text(m.datasets.empty() ? "" : m.datasets.back().substr(0, kMaxDatasetBytes));
  file.commit();
}

// -- GGUF ----------------------------------------------------------------------------------------

std::vector<float> floats_of(const TensorEntry& t, std::span<const std::byte> file) {
  if (t.dtype != DType::kF32) {
    throw Error({"a tensor of an importance matrix has another type",
                 {},
                 "tensor " + in_quotes(t.name),
                 "F32",
                 name_of(t.dtype),
                 {}});
  }
  std::vector<float> values(static_cast<size_t>(t.bytes / 4));
  std::memcpy(values.data(), file.data() + t.offset, static_cast<size_t>(t.bytes));
  return values;
}

void check_pair(const ImatrixEntry& e) {
  const char* missing = e.sums.empty() ? kSums : e.counts.empty() ? kCounts : nullptr;
  if (missing != nullptr) {
    throw Error({"one of the two tensors of an entry is missing",
                 {},
                 "entry " + in_quotes(e.name),
                 "tensor " + in_quotes(e.name + missing),
                 "none",
                 {}});
  }
  if (e.sums.size() % e.counts.size() != 0) {
    throw Error({"an entry's sums do not belong to its counts",
                 {},
                 "entry " + in_quotes(e.name),
                 "a multiple of " + std::to_string(e.counts.size()) + " sums",
                 std::to_string(e.sums.size()),
                 {}});
  }
  check_values(e.sums, "a sum", e.name);
  check_values(e.counts, "a count", e.name);
}

Imatrix parse_gguf_imatrix(std::span<const std::byte> bytes, const std::string& path) {
  const GgufHead head = parse_gguf(bytes, path);
  const GgufMetadata& keys = head.metadata;
  if (keys.get_string("general.type", "model") != "imatrix") {
    throw Error({"not an importance matrix",
                 {},
                 "key \"general.type\"",
                 "imatrix",
                 std::string(keys.get_string("general.type", "model")),
                 "carat imatrix writes one"});
  }
  Imatrix m;
  if (keys.has("imatrix.datasets")) {
    for (const std::string_view s : keys.get_strings("imatrix.datasets"))
      m.datasets.emplace_back(s);
  }
  m.chunk_count = keys.get_int("imatrix.chunk_count", 0, kMaxU32, 0);
  m.chunk_size = keys.get_int("imatrix.chunk_size", 0, kMaxU32, 0);
  std::map<std::string, ImatrixEntry> entries;
  for (const TensorEntry& t : head.entries) {
    const std::string_view name = t.name;
    for (const char* suffix : {kSums, kCounts}) {
      if (!name.ends_with(suffix) || name == suffix) continue;
      ImatrixEntry& e = entries[t.name.substr(0, t.name.size() - std::strlen(suffix))];
      (suffix == kSums ? e.sums : e.counts) = floats_of(t, bytes);
    }
  }
  for (auto& [name, entry] : entries) {
    entry.name = name;
    check_pair(entry);
    m.entries.push_back(std::move(entry));
  }
  if (m.entries.empty()) throw Error({"the importance matrix is empty", {}, {}, {}, {}, {}});
  return m;
}

void write_gguf(const std::string& path, const Imatrix& m) {
  GgufFields fields;
  fields.add_string("general.type", "imatrix");
  fields.add_strings("imatrix.datasets", m.datasets);
  fields.add_u32("imatrix.chunk_count", static_cast<uint32_t>(std::min(m.chunk_count, kMaxU32)));
  fields.add_u32("imatrix.chunk_size", static_cast<uint32_t>(std::min(m.chunk_size, kMaxU32)));
  std::vector<TensorSpec> specs;
  for (const ImatrixEntry& e : m.entries) {
    const auto n = static_cast<int64_t>(e.counts.size());
    specs.push_back({e.name + kSums, DType::kF32, {n, static_cast<int64_t>(e.sums.size()) / n}});
    specs.push_back({e.name + kCounts, DType::kF32, {n, 1}});
  }
  GgufWriter writer(path, fields, specs);
  for (const ImatrixEntry& e : m.entries) {
    writer.write(e.name + kSums, std::as_bytes(std::span(e.sums)));
    writer.write(e.name + kCounts, std::as_bytes(std::span(e.counts)));
  }
  writer.finish();
}

}  // namespace

std::vector<float> ImatrixEntry::means() const {
  CHECK(!counts.empty() && sums.size() % counts.size() == 0);
  const size_t columns = sums.size() / counts.size();
  std::vector<float> out(sums.size(), 1.0f);
  for (size_t i = 0; i < sums.size(); ++i) {
    const float n = counts[i / columns];
    if (n > 0) out[i] = std::min(sums[i] / n, std::numeric_limits<float>::max());
  }
  return out;
}

const ImatrixEntry* Imatrix::find(std::string_view name) const {
  const auto at =
      std::lower_bound(entries.begin(), entries.end(), name,
                       [](const ImatrixEntry& e, std::string_view n) { return e.name < n; });
  return at != entries.end() && at->name == name ? &*at : nullptr;
}

Imatrix parse_imatrix(std::span<const std::byte> bytes, const std::string& path) try {
  const bool gguf = bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0;
  return gguf ? parse_gguf_imatrix(bytes, path) : parse_binary(bytes);
} catch (const Error& e) {
  throw e.with_file(path);
}

Imatrix read_imatrix(const std::string& path) {
  const MappedFile file(path);
  return parse_imatrix(file.bytes(), path);
}

void write_imatrix(const std::string& path, const Imatrix& imatrix) {
  for (const ImatrixEntry& e : imatrix.entries) {
    CHECK(!e.counts.empty() && !e.sums.empty() && e.sums.size() % e.counts.size() == 0);
  }
  if (path.ends_with(".dat")) return write_binary(path, imatrix);
  write_gguf(path, imatrix);
}

}  // namespace carat::io
