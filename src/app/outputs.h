// Files that a command is about to write, looked at before hours of work and not after them.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace carat::app {

struct Output {
  std::string option;  // how messages name it: "--html"
  std::string path;
  bool force = false;  // whatever lies there may be replaced
  // Whether an existing file is one of the kind that is written, which may be replaced without
  // being asked; empty: none is.
  std::function<bool(const std::string& path)> is_ours = {};
  std::string hint = "--force replaces it";  // for a file that may not be replaced
};

// Throws Error if an output is one of the inputs, or lies in a directory that is one and exists
// there. Inputs that do not exist are left to who reads them.
void refuse_inputs(const Output& output, const std::vector<std::string>& inputs);

// That of every output; and throws Error if an output's folder is not there, if two outputs are
// one file, or if one exists and may not be replaced.
void check_outputs(const std::vector<Output>& outputs, const std::vector<std::string>& inputs);

// Whether a file begins as the pages do that carat writes.
[[nodiscard]] bool is_page(const std::string& path);

}  // namespace carat::app
