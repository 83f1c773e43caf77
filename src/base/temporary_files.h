// Names of files that are being written, so that remove_temporary_files (base/file.h) can remove
// them when the process is about to end in a signal handler.
#pragma once

#include <string>

namespace carat {

void register_temporary_file(const std::string& path);
void unregister_temporary_file(const std::string& path);

}  // namespace carat
