// Any text as model.safetensors.index.json: refused with an Error, or it names plain files only.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "io/safetensors_parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const carat::io::SafetensorsIndex index = carat::io::parse_safetensors_index(text);
    CHECK(!index.tensors.empty() && !index.files.empty());
    for (const auto& t : index.tensors) {
      CHECK(t.file >= 0 && static_cast<size_t>(t.file) < index.files.size());
    }
    for (size_t i = 0; i < index.files.size(); ++i) {
      const std::string& f = index.files[i];
      CHECK(f.find('/') == std::string::npos && f.find('\\') == std::string::npos && f[0] != '.');
      CHECK(i == 0 || index.files[i - 1] < f);
    }
  } catch (const carat::Error&) {
  }
  return 0;
}
