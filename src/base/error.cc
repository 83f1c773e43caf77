#include "base/error.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace carat {
namespace {

std::string render(const ErrorInfo& e) {
  std::string s;
  if (!e.file.empty()) s += e.file + ": ";
  if (!e.place.empty()) s += e.place + ": ";
  s += e.what;
  if (!e.expected.empty()) s += "; expected " + e.expected;
  if (!e.got.empty()) s += (e.expected.empty() ? "; got " : ", got ") + e.got;
  if (!e.hint.empty()) s += "\n  hint: " + e.hint;
  return s;
}

}  // namespace

Error::Error(ErrorInfo info) : info_(std::move(info)), text_(render(info_)) {}

Error Error::with_file(const std::string& file) const {
  ErrorInfo i = info_;
  if (i.file.empty()) i.file = file;
  return Error(std::move(i));
}

Error Error::with_place(const std::string& place) const {
  ErrorInfo i = info_;
  if (i.place.empty()) i.place = place;
  return Error(std::move(i));
}

void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "carat: internal error: %s does not hold at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace carat
