#include "convert/inspect_part.h"

#include <algorithm>

#include "base/error.h"
#include "convert/drafter.h"
#include "convert/mmproj.h"

namespace carat::convert {
namespace {

void add_tensors(const io::TensorSource& source, PartReport& report) {
  for (const io::TensorEntry& entry : source.entries()) {
    const int64_t elements = entry.shape.empty() ? 1 : *element_count(entry.shape);
    const char* type = name_of(entry.dtype);
    auto group = std::find_if(report.types.begin(), report.types.end(),
                              [&](const InspectReport::Group& g) { return g.name == type; });
    if (group == report.types.end()) {
      group = report.types.insert(report.types.end(), {type, 0, 0, 0});
    }
    ++group->tensors;
    group->weights += elements;
    group->bytes += entry.bytes;
    report.bytes += entry.bytes;
    report.parameters += elements;
    InspectedTensor t;
    t.name = entry.name;
    t.dtype = entry.dtype;
    t.shape = entry.shape;
    t.bytes = entry.bytes;
    report.tensors.push_back(std::move(t));
  }
}

}  // namespace

std::optional<PartReport> inspect_part(const std::string& path) {
  const io::Checkpoint checkpoint = io::open_checkpoint(path);
  PartReport report;
  report.path = path;
  report.container = io::name_of(checkpoint.kind);
  try {
    if (is_drafter(checkpoint)) {
      const model::DrafterConfig config = drafter_config(checkpoint);
      report.role = "drafter";
      report.description = describe(config);
      report.config = model::drafter_to_hf(config);
    } else if (is_towers_only(checkpoint)) {
      const model::TowersConfig config =
          checkpoint.gguf != nullptr
              ? model::towers_from_gguf(checkpoint.gguf->metadata(), *checkpoint.tensors)
              : model::towers_from_hf(checkpoint.config);
      report.role = "towers";
      report.description = describe(config);
      report.config = model::towers_to_hf(config);
    } else {
      return std::nullopt;
    }
  } catch (const Error& e) {
    throw e.with_file(path);
  }
  add_tensors(*checkpoint.tensors, report);
  return report;
}

Json to_json(const PartReport& r) {
  Json j;
  j["path"] = r.path;
  j["kind"] = r.container;
  j["role"] = r.role;
  j["description"] = r.description;
  j["config"] = r.config;
  j["parameters"] = r.parameters;
  j["bytes"] = r.bytes;
  j["types"] = Json::array();
  for (const InspectReport::Group& g : r.types) {
    j["types"].push_back(
        {{"name", g.name}, {"tensors", g.tensors}, {"weights", g.weights}, {"bytes", g.bytes}});
  }
  j["tensors"] = Json::array();
  for (const InspectedTensor& t : r.tensors) {
    j["tensors"].push_back(
        {{"name", t.name}, {"type", name_of(t.dtype)}, {"shape", t.shape}, {"bytes", t.bytes}});
  }
  return j;
}

}  // namespace carat::convert
