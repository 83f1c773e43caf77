#include "app/command.h"

#include "base/error.h"
#include "base/thread_pool.h"

namespace carat::app {
namespace {

constexpr struct {
  const char* name;
  kernels::KvType type;
} kKvTypes[] = {{"f32", kernels::KvType::kF32},
                {"f16", kernels::KvType::kF16},
                {"int8", kernels::KvType::kI8},
                {"int4", kernels::KvType::kI4},
                {"int4r", kernels::KvType::kI4R}};

}  // namespace

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

std::vector<std::string> kv_type_names() {
  std::vector<std::string> names;
  for (const auto& row : kKvTypes) names.emplace_back(row.name);
  return names;
}

Option kv_option(std::string* target) {
  return {.names = "--kv",
          .value = "TYPE",
          .target = target,
          .help = "type of the cached keys and values (int4r: int4 of rotated vectors)",
          .choices = kv_type_names()};
}

kernels::KvType kv_type(const std::string& name) {
  for (const auto& row : kKvTypes) {
    if (name == row.name) return row.type;
  }
  CHECK(!"a name of kv_type_names()");
  return kernels::KvType::kI8;
}

int resolve_threads(int64_t asked) {
  return asked > 0 ? static_cast<int>(asked) : ThreadPool::available_processors();
}

}  // namespace carat::app
