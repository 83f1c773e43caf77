#include "app/outputs.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/file.h"

namespace carat::app {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

// Where a path leads that may not exist yet.
fs::path destination(const std::string& path) {
  std::error_code code;
  const fs::path whole = fs::weakly_canonical(path, code);
  return code ? fs::path(path).lexically_normal() : whole;
}

// NAME of a part NAME-00001-of-00003.gguf with the number of parts; else empty.
std::string split_name(const std::string& path) {
  static const std::regex part(R"((.*)-\d{5}(-of-\d{5}\.gguf))");
  const std::string whole = destination(path).string();
  std::smatch found;
  if (!std::regex_match(whole, found, part)) return {};
  return found[1].str() + found[2].str();
}

// Another part of a model that is split into several files.
bool is_part_of(const std::string& input, const std::string& output) {
  const std::string name = split_name(output);
  return !name.empty() && name == split_name(input);
}

void check_output(const Output& output) {
  std::error_code ignored;
  if (!fs::is_directory(folder_of(output.path), ignored)) {
    throw Error({"its folder does not exist", output.path, output.option, {}, {}, "create it"});
  }
  if (output.force || !fs::exists(output.path, ignored)) return;
  if (output.is_ours && output.is_ours(output.path)) return;
  throw Error({"the file exists", output.path, output.option, {}, {}, output.hint});
}

}  // namespace

void refuse_inputs(const Output& output, const std::vector<std::string>& inputs) {
  for (const std::string& input : inputs) {
    std::error_code ignored;
    const bool inside = fs::is_directory(input, ignored) && fs::exists(output.path, ignored) &&
                        same_file(input, folder_of(output.path).string());
    const bool part = is_part_of(input, output.path);
    if (!inside && !part && !same_file(input, output.path)) continue;
    throw Error({inside || part ? "the output is a file of an input" : "the output is an input",
                 output.path,
                 output.option,
                 "another file",
                 input,
                 {}});
  }
}

void check_outputs(const std::vector<Output>& outputs, const std::vector<std::string>& inputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    refuse_inputs(outputs[i], inputs);
    for (size_t j = 0; j < i; ++j) {
      if (destination(outputs[i].path) != destination(outputs[j].path)) continue;
      throw Error({"two outputs are one file",
                   outputs[i].path,
                   outputs[i].option,
                   {},
                   outputs[j].option,
                   "give each a name of its own"});
    }
    check_output(outputs[i]);
  }
}

bool is_page(const std::string& path) {
  constexpr std::string_view kBegin = "<!doctype html>";
  std::array<char, kBegin.size()> begin = {};
  std::ifstream file(path, std::ios::binary);
  if (!file.read(begin.data(), begin.size())) return false;
  return std::equal(begin.begin(), begin.end(), kBegin.begin(), [](char a, char b) {
    return std::tolower(static_cast<unsigned char>(a)) == b;
  });
}

}  // namespace carat::app
