#include "app/nano.h"

// .incbin takes the file as it is: no generated source of megabytes, nothing for the compiler to
// read. cmake/app.cmake defines CARAT_NANO_GGUF and makes this file depend on it.
#ifdef CARAT_NANO_GGUF
asm(R"(
  .pushsection .rodata
  .balign 64
carat_nano_begin:
  .incbin ")" CARAT_NANO_GGUF R"("
carat_nano_end:
  .byte 0
  .popsection
)");
extern "C" const std::byte carat_nano_begin[] __attribute__((visibility("hidden")));
extern "C" const std::byte carat_nano_end[] __attribute__((visibility("hidden")));
#endif

namespace carat::app {

std::span<const std::byte> nano_model() {
#ifdef CARAT_NANO_GGUF
  return {carat_nano_begin, static_cast<size_t>(carat_nano_end - carat_nano_begin)};
#else
  return {};
#endif
}

}  // namespace carat::app
