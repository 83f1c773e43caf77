// One line of progress on standard error: redrawn on a terminal, silent elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace carat::app {

// Not thread-safe. The line is wiped by finish() or the destructor.
class Progress {
 public:
  // `unit` names what is counted ("tensors", "tokens"); `visible` defaults to "standard error is a
  // terminal that understands cursor movement".
  explicit Progress(std::string unit);
  Progress(std::string unit, bool visible);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `total` <= 0: not known. Cheap to call often: draws at most ten times a second.
  void update(int64_t done, int64_t total, const std::string& note = {});
  // Wipes the line, so that something else can be printed.
  void finish();

  // The line for given figures, without control characters: "12/35 tensors  34 %  eta 0:41  note".
  static std::string line(const std::string& unit, int64_t done, int64_t total, double seconds,
                          const std::string& note);

 private:
  using Clock = std::chrono::steady_clock;
  std::string unit_;
  bool visible_;
  bool drawn_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_ = {};
};

// True if standard error is a terminal worth drawing on (TERM is set and not "dumb").
bool stderr_is_terminal();
bool stdin_is_terminal();
bool stdout_is_terminal();

// "0:41", "12:05", "3:07:12".
std::string format_duration(double seconds);
// "1.23 GB" with GB = 1e9.
std::string format_bytes(int64_t bytes);

}  // namespace carat::app
