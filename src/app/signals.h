// Ctrl-C and its relatives. The first SIGINT, SIGTERM or SIGHUP asks the running command to stop at
// the next safe place; the second ends the program at once. Either way no half-written file stays.
// A SIGHUP that was ignored when the program started (nohup) stays ignored.
#pragma once

#include <atomic>

namespace carat::app {

// Call once, first thing in `main`.
void install_signal_handlers();

// Set by the first of those signals; commands hand it to whatever runs long.
const std::atomic<bool>& stop_flag();

// Forgets a stop that was dealt with (a chat's Ctrl-C stops the answer, not the program).
void clear_stop();

// Throws Interrupted if the flag is set.
void throw_if_stopped();

}  // namespace carat::app
