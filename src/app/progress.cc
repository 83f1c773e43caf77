#include "app/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace carat::app {
namespace {

size_t terminal_width() {
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

}  // namespace

bool stderr_is_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && term && std::string_view(term) != "dumb";
}
bool stdin_is_terminal() { return isatty(STDIN_FILENO); }
bool stdout_is_terminal() { return isatty(STDOUT_FILENO); }

std::string format_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string format_bytes(int64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1e9) return fmt::format("{:.2f} GB", b / 1e9);
  if (b >= 1e6) return fmt::format("{:.1f} MB", b / 1e6);
  if (b >= 1e3) return fmt::format("{:.1f} kB", b / 1e3);
  return fmt::format("{} B", bytes);
}

Progress::Progress(std::string unit) : Progress(std::move(unit), stderr_is_terminal()) {}
Progress::Progress(std::string unit, bool visible) : unit_(std::move(unit)), visible_(visible) {}
Progress::~Progress() { finish(); }

std::string Progress::line(const std::string& unit, int64_t done, int64_t total, double seconds,
                           const std::string& note) {
  std::string text;
  if (total > 0) {
    const double share = static_cast<double>(done) / static_cast<double>(total);
    text = fmt::format("{}/{} {}  {:.0f} %", done, total, unit, 100 * share);
    if (done > 0 && done < total && seconds > 0.5) {
      text += "  eta " + format_duration(seconds / share - seconds);
    }
  } else {
    text = fmt::format("{} {}  {}", done, unit, format_duration(seconds));
  }
  if (!note.empty()) text += "  " + note;
  return text;
}

void Progress::update(int64_t done, int64_t total, const std::string& note) {
  if (!visible_) return;
  const auto now = Clock::now();
  if (drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  std::string text = line(unit_, done, total, seconds, note);
  if (const size_t width = terminal_width(); text.size() >= width) text.resize(width - 1);
  fmt::print(stderr, "\r\x1b[K{}", text);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::finish() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace carat::app
