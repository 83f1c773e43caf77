// The parts of a model that was split into several GGUF files: NAME-00001-of-00003.gguf and so on.
#pragma once

#include <string>
#include <vector>

#include "io/gguf_parse.h"

namespace carat::io {

// The path of part `number` (from 0) of `count`; `stem` is what comes before the numbers.
std::string part_path(const std::string& stem, int64_t number, int64_t count);

// Paths of all parts in order, from the path and the split of one of them. Throws Error if the
// file's name does not end in its number as the split states it: the others cannot be found then.
std::vector<std::string> part_paths(const std::string& path, const GgufSplit& split);

// Throws Error if the file at `path` is not part `number` of a model split as `first` is.
void check_part(const std::string& path, const GgufSplit& part, int64_t number,
                const GgufSplit& first);

}  // namespace carat::io
