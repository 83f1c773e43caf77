// What the program's exit code says. Stable: scripts depend on it.
#pragma once

namespace carat::app {

enum ExitCode : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,        // the command line makes no sense
  kCheckFailed = 3,  // the check that was asked for did not hold
  kInterrupted = 130,
};

}  // namespace carat::app
