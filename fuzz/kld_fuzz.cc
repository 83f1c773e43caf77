// Any bytes as a file of reference predictions of llama.cpp: refused with an Error, or every row is
// read.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "audit/kld_file.h"
#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const carat::audit::KldFile file("x.kld", std::as_bytes(std::span(data, size)));
    for (int64_t c = 0; c < file.chunks(); ++c) {
      for (const int32_t token : file.tokens(c)) CHECK(token < file.vocab_size());
      for (int64_t r = 0; r < file.rows_per_chunk(); ++r) {
        const carat::audit::KldRow row = file.row(c, r);
        for (int64_t v = 0; v < file.vocab_size(); ++v) CHECK(std::isfinite(row.log_p(v)));
      }
    }
  } catch (const carat::Error&) {
  }
  return 0;
}
