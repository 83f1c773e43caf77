// Any bytes as a GGUF file: refused with an Error, or every value and tensor in it is readable.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/gguf_parse.h"
#include "quant/scheme.h"

namespace {

using carat::Error;
using carat::io::GgufHead;
using carat::io::GgufMetadata;
using carat::io::GgufStrings;

// Calls a getter; whatever the type is, it answers or throws Error.
template <class F>
void attempt(F f) {
  try {
    (void)f();
  } catch (const Error&) {
  }
}

void read_metadata(const GgufMetadata& m) {
  for (const GgufMetadata::Entry& e : m.entries()) {
    const std::string_view key = e.key;
    CHECK(m.has(key));
    (void)describe(e.value);
    attempt([&] { return m.get_int(key, INT64_MIN, INT64_MAX); });
    attempt([&] { return m.get_number(key, -1e300, 1e300); });
    attempt([&] { return m.get_bool(key); });
    attempt([&] { return m.get_string(key).size(); });
    attempt([&] { return m.get_ints(key, INT32_MIN, INT32_MAX).size(); });
    attempt([&] { return m.get_floats(key).size(); });
    attempt([&] { return m.get_bools(key).size(); });
    attempt([&] { return m.get_int_per_layer(key, 35, 0, 1 << 20).size(); });
    attempt([&] {
      const GgufStrings strings = m.get_strings(key);
      int64_t n = 0;
      size_t total = 0;
      for (const std::string_view s : strings) ++n, total += std::string(s).size();
      CHECK(n == strings.size());
      return total;
    });
  }
}

void read_tensors(const GgufHead& head, std::span<const std::byte> file) {
  int64_t end = head.data_begin;
  for (const carat::io::TensorEntry& t : head.entries) {
    CHECK(t.offset >= end);
    CHECK(t.bytes > 0 && t.offset + t.bytes <= static_cast<int64_t>(file.size()));
    CHECK(t.bytes == carat::byte_count(t.dtype, t.shape));
    end = t.offset + t.bytes;
    if (!carat::quant::can_decode(t.dtype)) continue;
    const int64_t n = std::min<int64_t>(t.shape.back(), 4096);
    std::vector<float> row(static_cast<size_t>(n));
    if (n % carat::info(t.dtype).block_elements != 0) continue;
    carat::quant::decode_row(t.dtype, file.data() + t.offset, row.data(), n);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const GgufHead head = carat::io::parse_gguf(bytes, "fuzz.gguf");
    read_metadata(head.metadata);
    read_tensors(head, bytes);
  } catch (const Error&) {
  }
  return 0;
}
