// What a drafter or a file of towers is: what `carat inspect` shows of a checkpoint that is no text
// model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "convert/inspect.h"
#include "io/checkpoint.h"

namespace carat::convert {

struct PartReport {
  std::string path;
  std::string container;    // "GGUF", ...
  std::string role;         // "drafter" or "towers"
  std::string description;  // a line for people
  Json config;              // as config.json has it
  int64_t parameters = 0;
  int64_t bytes = 0;  // of all tensors
  std::vector<InspectReport::Group> types;
  std::vector<InspectedTensor> tensors;
};

// Nothing if it is neither. Throws Error if its config is not sound.
std::optional<PartReport> inspect_part(const std::string& path);
Json to_json(const PartReport& report);

}  // namespace carat::convert
