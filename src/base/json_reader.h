// Reads one JSON document from front to back without building it: for files whose arrays and
// objects have hundreds of thousands of members. parse_json (base/json.h) is the simpler choice
// everywhere else.
//
//   JsonReader in(text);
//   in.begin_object();
//   for (std::string_view key; in.next_key(&key);) {
//     if (key == "size") size = in.integer(0, 100);
//     else in.skip();
//   }
//   in.end();
//
// The caller consumes the value of every key and every element, with exactly one call. Duplicate
// keys are the caller's business. Syntax errors, invalid UTF-8, nesting deeper than the limit and
// values of another type than asked for throw Error with line and column.
//
// Copying a reader marks a place to come back to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace carat {

class JsonReader {
 public:
  enum class Kind { kObject, kArray, kString, kNumber, kBool, kNull };

  // `text` outlives the reader.
  explicit JsonReader(std::string_view text, int max_depth = 64);

  // What the next value is.
  [[nodiscard]] Kind peek();

  void begin_object();
  // False at the object's end, which it consumes. `key` is valid until the next call.
  [[nodiscard]] bool next_key(std::string_view* key);
  void begin_array();
  // False at the array's end, which it consumes.
  [[nodiscard]] bool next_element();

  // Valid until the next call; a view of the document where the string has no escapes.
  std::string_view string();
  int64_t integer(int64_t lo, int64_t hi);
  bool boolean();
  void null();
  void skip();
  // Skips a value and returns its text, to be parsed by other means.
  std::string_view raw();

  // Throws unless only white space is left.
  void end();

  // Throws Error{what, place of the last value read, expected, got}.
  [[noreturn]] void fail(const char* what, std::string expected = {}, std::string got = {}) const;

 private:
  void skip_space();
  void expect(char c, const char* what);
  bool next(char close);
  void open(char c, const char* what);
  std::string_view string_with_escapes(size_t begin);
  uint32_t hex4();
  std::string_view number();
  void literal(std::string_view word);

  std::string_view text_;
  size_t at_ = 0;
  size_t value_at_ = 0;  // of the last value, for messages
  int max_depth_;
  std::vector<bool> first_;  // of each open object or array: no member was read yet
  std::string scratch_;
};

}  // namespace carat
