#include "app/command.h"

#include "base/error.h"
#include "base/thread_pool.h"

namespace carat::app {

Option json_option(bool* target) {
  return {.names = "--json", .target = target, .help = "one JSON document on stdout"};
}

Option threads_option(int64_t* target) {
  return {.names = "-t,--threads",
          .value = "N",
          .target = target,
          .help = "threads; 0: every processor this process may use",
          .lowest = 0,
          .highest = 1024};
}

Option verbose_option(bool* target) {
  return {.names = "-v,--verbose", .target = target, .help = "tells the speed of the answer on stderr, terminal or not"};
}

Option no_pack_option(bool* target) {
  return {.names = "--no-pack",
          .target = target,
          .help =
              "leaves quantized weights in the file's pages instead of copying them, rearranged, "
              "into memory: less memory where several programs share the file, slower"};
}

Option kv_option(std::string* target) {
  return {.names = "--kv",
          .value = "TYPE",
          .target = target,
          .help = "type of the cached keys and values",
          .choices = {"f32", "f16", "int8"}};
}

kernels::KvType kv_type(const std::string& name) {
  if (name == "f32") return kernels::KvType::kF32;
  if (name == "f16") return kernels::KvType::kF16;
  CHECK(name == "int8");
  return kernels::KvType::kI8;
}

int resolve_threads(int64_t asked) {
  return asked > 0 ? static_cast<int>(asked) : ThreadPool::available_processors();
}

}  // namespace carat::app
