// How many threads are worth starting.
#pragma once

#include <string>

namespace carat {

// Processor cores that this process may use: those of its affinity mask, counted once where several
// of its processors share one (hyper-threads add little to code that keeps a core's vector units
// busy), and no more than the processor time its control groups (versions 1 and 2) allow, rounded
// up. At least 1. What cannot be read does not limit.
// root: where /proc and /sys lie, for tests.
int usable_processors(const std::string& root = "");

}  // namespace carat
