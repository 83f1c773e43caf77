// `carat inspect --checksum`: SHA-256 of a checkpoint's files.
#pragma once

#include <atomic>
#include <string>

namespace carat::app {

// The digests of a file, or of every .safetensors and .gguf file of a directory, as sha256sum
// prints them (or as JSON), and whether they are what the Hub recorded or what `list` says (a text
// of sha256sum, or a Git LFS pointer; may be empty). Throws Error if one differs.
void print_checksums(const std::string& path, const std::string& list, bool json,
                     const std::atomic<bool>* stop);

}  // namespace carat::app
