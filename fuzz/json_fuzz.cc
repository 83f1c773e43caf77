// Any text as JSON: the two parsers agree on what is valid, apart from what only one of them
// checks, and limits hold.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/json_reader.h"

namespace {

constexpr int kDepth = 40;

// "" if the text was accepted.
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const carat::Error& e) {
    return e.info().what;
  }
  return "";
}

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string tree = error_of([&] {
    const carat::Json j = carat::parse_json(text, {.max_depth = kDepth, .max_bytes = 1 << 16});
    // What we write, we read.
    const carat::Json again = carat::parse_json(carat::to_json_text(j), {.max_depth = kDepth});
    CHECK(again == j);
  });
  const std::string pull = error_of([&] {
    carat::JsonReader in(text, kDepth + 1);
    in.skip();
    in.end();
  });
  const bool has_mark = text.starts_with("\xef\xbb\xbf");  // only the tree parser skips one
  if (tree.empty() && !has_mark) CHECK(pull.empty());
  if (pull.empty() && !tree.empty()) {
    CHECK(contains(tree, "twice") || contains(tree, "too deeply") || contains(tree, "too large") ||
          contains(tree, "out_of_range") || contains(tree, "out of range"));
  }
  return 0;
}
