// `carat inspect --checksum`: SHA-256 of a checkpoint's files.
#pragma once

#include <atomic>
#include <string>
#include <vector>

namespace carat::app {

// The file at `path`, or all parts of a split GGUF file of which it is one. Throws Error if a part
// is missing.
[[nodiscard]] std::vector<std::string> parts_of(const std::string& path);

// The digests of a file (all its parts), or of every .safetensors and .gguf file of a directory, as
// sha256sum prints them (or as JSON), and whether they are what the Hub recorded or what `list`
// says (a text of sha256sum, or a Git LFS pointer, which is about one file: of a split one, only
// `path` then; may be empty). Returns whether none differs; those that do are named on standard
// error. Throws Error.
[[nodiscard]] bool print_checksums(const std::string& path, const std::string& list, bool json,
                                   const std::atomic<bool>* stop);

}  // namespace carat::app
