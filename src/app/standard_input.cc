#include "app/standard_input.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "app/signals.h"
#include "base/error.h"

namespace carat::app {
namespace {

// Bytes read, 0 at the end.
size_t read_some(char* buffer, size_t size) {
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer, size);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR)
      throw Error({"cannot read", "standard input", {}, {}, std::strerror(errno), {}});
    throw_if_stopped();
  }
}

}  // namespace

std::string read_standard_input(int64_t limit) {
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = read_some(buffer, sizeof buffer)) {
    text.append(buffer, n);
    if (static_cast<int64_t>(text.size()) > limit) {
      throw Error({"the text is too long",
                   "standard input",
                   {},
                   "at most " + std::to_string(limit) + " bytes",
                   {},
                   {}});
    }
  }
  return text;
}

std::optional<std::string> read_line() {
  std::string line;
  char c;
  // A byte at a time: a person types no faster, and what follows the line must stay unread.
  while (read_some(&c, 1) == 1) {
    if (c == '\n') return line;
    line += c;
  }
  if (line.empty()) return std::nullopt;
  return line;
}

}  // namespace carat::app
