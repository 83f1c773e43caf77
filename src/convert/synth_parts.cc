#include "convert/synth_parts.h"

#include "base/error.h"
#include "convert/drafter.h"
#include "convert/mmproj.h"
#include "model/config.h"

namespace carat::convert {
namespace {

constexpr std::string_view kDrafter = "-assistant";
constexpr std::string_view kTowers = "-mmproj";

}  // namespace

bool is_part_size(std::string_view size) {
  return size.ends_with(kDrafter) || size.ends_with(kTowers);
}

std::vector<std::string> part_size_names() {
  std::vector<std::string> names;
  for (const std::string& size : model::config_size_names()) {
    names.push_back(size + std::string(kDrafter));
    names.push_back(size + std::string(kTowers));
  }
  return names;
}

SynthReport write_synthetic_part(const SynthOptions& options) {
  if (options.type != "q4_0" && options.type != "bf16") {
    throw Error({"drafters and towers are not made in this type", "", "--type", "q4_0 or bf16",
                 options.type, ""});
  }
  if (options.layers != 0) {
    throw Error({"drafters and towers are made whole", "", "--layers", "0",
                 std::to_string(options.layers), ""});
  }
  const bool drafter = options.size.ends_with(kDrafter);
  const std::string size =
      options.size.substr(0, options.size.size() - (drafter ? kDrafter : kTowers).size());
  const ConvertReport made = drafter
                                 ? write_synthetic_drafter({.size = size,
                                                            .target = options.target,
                                                            .gguf = options.gguf,
                                                            .lattice = options.type == "q4_0",
                                                            .seed = options.seed})
                                 : write_synthetic_towers({.config = model::towers_of_size(size),
                                                           .name = "random towers of " + size,
                                                           .target = options.target,
                                                           .gguf = options.gguf,
                                                           .seed = options.seed});
  SynthReport report;
  report.tensors = static_cast<int64_t>(made.tensors.size());
  for (const TensorReport& t : made.tensors) {
    report.parameters += t.weights;
    report.bytes += t.bytes;
  }
  return report;
}

}  // namespace carat::convert
