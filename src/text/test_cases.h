// Reads the text files of test cases: lines "key: value", # for comments, with the escapes \n \r \t
// \xHH \\ in values.
#pragma once

#include <cstdlib>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"

namespace carat::text {

using CaseLines = std::vector<std::pair<std::string, std::string>>;

struct CaseFile {
  CaseLines head;                // before the first case
  std::vector<CaseLines> cases;  // each begins with one of the keys asked for
};

inline std::string resolve_escapes(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = i + 1 < text.size() ? text[i + 1] : ' ';
    if (text[i] != '\\' || std::string("nrtx\\").find(next) == std::string::npos) {
      out += text[i];
      continue;
    }
    ++i;
    if (next == 'x') {
      out += static_cast<char>(std::strtol(text.substr(i + 1, 2).c_str(), nullptr, 16));
      i += 2;
    } else {
      out += next == 'n' ? '\n' : next == 'r' ? '\r' : next == 't' ? '\t' : '\\';
    }
  }
  return out;
}

inline CaseFile read_cases(const std::string& name, const std::set<std::string>& starts) {
  std::istringstream in(
      read_text_file(std::string(CARAT_SOURCE_DIR) + "/src/text/testdata/" + name, 1 << 20));
  CaseFile file;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(':');
    const std::string key = line.substr(0, colon);
    std::string value = line.substr(colon + 1);
    if (!value.empty() && value[0] == ' ') value.erase(0, 1);
    if (starts.contains(key)) file.cases.emplace_back();
    (file.cases.empty() ? file.head : file.cases.back()).emplace_back(key, resolve_escapes(value));
  }
  return file;
}

}  // namespace carat::text
