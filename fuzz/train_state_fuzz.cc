// Any bytes as the state of a training run of 4 parameters: refused with an Error, or whole.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "train/state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = ::memfd_create("state", MFD_CLOEXEC);
  if (fd < 0) return 0;
  if (size == 0 || ::write(fd, data, size) == static_cast<ssize_t>(size)) {
    try {
      const carat::train::TrainState state = carat::train::load_state(
          "/proc/self/fd/" + std::to_string(fd), carat::Json{{"run", 1}}, 4);
      CHECK(state.weights.size() == 4 && state.m.size() == 4 && state.v.size() == 4);
      CHECK(state.step >= 0);
    } catch (const carat::Error&) {
    }
  }
  ::close(fd);
  return 0;
}
