// Any bytes as an importance matrix of either kind: refused with an Error, or its means are numbers
// that a quantizer can use.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "io/imatrix_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const carat::io::Imatrix m =
        carat::io::parse_imatrix(std::as_bytes(std::span(data, size)), "fuzz.gguf");
    CHECK(!m.entries.empty());
    for (const carat::io::ImatrixEntry& e : m.entries) {
      CHECK(m.find(e.name) == &e);
      const std::vector<float> means = e.means();
      CHECK(means.size() == e.sums.size());
      for (const float v : means) CHECK(std::isfinite(v) && v >= 0);
    }
  } catch (const carat::Error&) {
  }
  return 0;
}
