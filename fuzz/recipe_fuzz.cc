// Any text as a recipe: it is refused, or it gives every tensor of a network a type that fits its
// rows, or says which one does not.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/error.h"
#include "convert/recipe.h"
#include "model/config.h"
#include "model/tensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = std::filesystem::temp_directory_path() /
                                  ("carat-recipe-fuzz-" + std::to_string(::getpid()) + ".json");
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    const carat::convert::Recipe recipe = carat::convert::read_recipe(path);
    for (const char* name : {"tiny", "E2B"}) {
      const carat::model::Config config = carat::model::config_of_size(name);
      for (const carat::model::TensorRef t : carat::model::required_tensors(config)) {
        try {
          const carat::DType type = carat::convert::type_in(recipe, config, t);
          CHECK(carat::byte_count(type, carat::model::shape_of(config, t)).has_value());
        } catch (const carat::Error&) {
        }
      }
    }
  } catch (const carat::Error&) {
  }
  std::filesystem::remove(path);
  return 0;
}
