#include "app/signals.h"

#include <unistd.h>

#include <csignal>

#include "app/exit_code.h"
#include "base/error.h"
#include "base/file.h"

namespace carat::app {
namespace {

// The one global of the program: a signal handler can reach nothing else.
std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void on_stop(int) {
  if (!g_stop.exchange(true)) return;
  remove_temporary_files();
  _exit(kInterrupted);
}

// A reader that closed the pipe: end as the shell expects, but without leftovers.
extern "C" void on_broken_pipe(int signal) {
  remove_temporary_files();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  action.sa_handler = on_stop;
  // No SA_RESTART: a read from the terminal must return so that the stop is seen.
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // nohup ignores it for us; then the end of the terminal must not end the program.
  struct sigaction before {};
  if (sigaction(SIGHUP, nullptr, &before) != 0 || before.sa_handler != SIG_IGN) {
    sigaction(SIGHUP, &action, nullptr);
  }
  action.sa_handler = on_broken_pipe;
  sigaction(SIGPIPE, &action, nullptr);
  // A file-size limit then shows as a failed write, with its message and without leftovers.
  std::signal(SIGXFSZ, SIG_IGN);
}

const std::atomic<bool>& stop_flag() { return g_stop; }

void clear_stop() { g_stop.store(false); }

void throw_if_stopped() {
  if (g_stop.load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace carat::app
