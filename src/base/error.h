// The three kinds of failure and their mechanisms.
//
//  * Bad input (a file, a request, an option) throws Error. It is caught in `main` and at the HTTP
//    boundary, nowhere else.
//  * A bug in carat aborts through CHECK, in every build.
//  * Kernels are noexcept: whatever they need was checked before they are called.
#pragma once

#include <exception>
#include <string>

namespace carat {

// What went wrong, for a person: which file, where in it, what was expected, what was found, and
// what to do about it. Every field but `what` may be empty. Texts name no memory address.
struct ErrorInfo {
  std::string what;      // one sentence without a full stop: "tensor data reaches past the end"
  std::string file;      // path as the user gave it
  std::string place;     // "tensor blk.3.attn_q.weight", "byte 1024", "--top-p"
  std::string expected;  // "at most 4096 bytes"
  std::string got;       // "9000 bytes"
  std::string hint;      // "the download may be incomplete; compare its size with the published one"
};

class Error : public std::exception {
 public:
  explicit Error(ErrorInfo info);
  explicit Error(std::string what) : Error(ErrorInfo{std::move(what), {}, {}, {}, {}, {}}) {}

  const char* what() const noexcept override { return text_.c_str(); }
  const ErrorInfo& info() const noexcept { return info_; }

  // The same error with `file` (or `place`) filled in where it was still empty: lets a parser that
  // knows only bytes be called by a reader that knows the path.
  Error with_file(const std::string& file) const;
  Error with_place(const std::string& place) const;

 private:
  ErrorInfo info_;
  std::string text_;
};

// Work that the user interrupted; `main` turns it into exit code 130.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace carat

// Aborts with the condition and its place if it is false. For bugs only, never for input.
#define CHECK(condition) \
  (static_cast<bool>(condition) ? (void)0 : ::carat::check_failed(#condition, __FILE__, __LINE__))
