// Both reports as JSON.
#include "convert/convert.h"
#include "convert/inspect.h"
#include "convert/report_file.h"
#include "model/config.h"

namespace carat::convert {
namespace {

// Whole blocks and weights at the top, as every reader expects them there.
void put_lattice(Json& j, const LatticeStats& s) {
  const Json figures = to_json(s);
  for (const auto& [key, value] : figures.items()) {
    if (!j.contains(key)) j[key] = value;
  }
}

Json comparison_json(const Comparison& c) {
  return {{"weights", c.weights}, {"equal", c.equal}, {"relative_rms", c.relative_rms}};
}

Json tensor_json(const TensorReport& t) {
  Json j;
  j["name"] = t.name;
  j["source"] = t.source_name;
  j["class"] = t.class_name;
  j["from"] = name_of(t.from);
  j["to"] = name_of(t.to);
  j["shape"] = t.shape;
  j["bytes"] = t.bytes;
  j["weights"] = t.weights;
  j["weights_bit_exact"] = t.weights_bit_exact;
  if (t.error.squared_error > 0) {
    j["relative_rms_error"] = t.error.relative_rms();
    j["worst_relative_error"] = t.error.worst_relative;
  }
  if (t.groups > 0) {
    j["groups"] = t.groups;
    j["groups_exact"] = t.groups_exact;
    j["groups_rounded_scale"] = t.groups_rounded_scale;
  }
  if (t.judged) {
    j["blocks"] = t.lattice.blocks;
    j["blocks_on_lattice"] = t.lattice.blocks_on_lattice;
    Json details = to_json(t.lattice);
    for (const char* key : {"blocks", "blocks_on_lattice", "weights", "codes"}) details.erase(key);
    j["lattice"] = std::move(details);
  }
  if (!t.note.empty()) j["kept"] = t.note;
  return j;
}

Json groups_json(const std::vector<InspectReport::Group>& groups) {
  Json list = Json::array();
  for (const InspectReport::Group& g : groups) {
    list.push_back(
        {{"name", g.name}, {"tensors", g.tensors}, {"weights", g.weights}, {"bytes", g.bytes}});
  }
  return list;
}

Json tensor_json(const InspectedTensor& t) {
  Json j;
  j["name"] = t.name;
  j["type"] = name_of(t.dtype);
  j["shape"] = t.shape;
  j["bytes"] = t.bytes;
  if (!t.skipped.empty()) j["skipped"] = t.skipped;
  if (t.lattice) {
    j["blocks"] = t.lattice->blocks;
    j["blocks_on_lattice"] = t.lattice->blocks_on_lattice;
  }
  if (t.comparison) j["against"] = comparison_json(*t.comparison);
  return j;
}

}  // namespace

Json to_json(const ConvertReport& r) {
  Json j;
  j["source"] = r.options.source;
  j["target"] = r.options.target;
  j["format"] = name_of(r.options.format);
  j["blocks"] = r.lattice.blocks;
  j["blocks_on_lattice"] = r.lattice.blocks_on_lattice;
  j["weights"] = r.weights;
  j["weights_bit_exact"] = r.weights_bit_exact;
  j["matrices"] = r.matrices;
  j["matrices_kept"] = r.matrices_kept;
  put_lattice(j, r.lattice);
  j["error"] = {{"relative_rms", r.error.relative_rms()},
                {"worst_relative", r.error.worst_relative}};
  j["losses"] = r.losses.text();
  j["source_bytes"] = r.source_bytes;
  j["target_bytes"] = r.target_bytes;
  j["seconds"] = r.seconds;
  j["source_files"] = to_json(r.source_files);
  j["target_files"] = to_json(r.target_files);
  j["classes"] = to_json(class_reports(r.tensors));
  j["notes"] = r.notes;
  if (!r.hint.empty()) j["hint"] = r.hint;
  Json tensors = Json::array();
  for (const TensorReport& t : r.tensors) tensors.push_back(tensor_json(t));
  j["tensors"] = std::move(tensors);
  return j;
}

Json to_json(const InspectReport& r) {
  Json j;
  j["path"] = r.path;
  j["kind"] = r.kind;
  j["config"] = model::config_to_hf(r.config);
  j["parameters"] = r.parameters;
  j["tokenizer_size"] = r.has_tokenizer ? Json(r.tokenizer_size) : Json(nullptr);
  j["bytes"] = r.bytes;
  j["types"] = groups_json(r.types);
  j["skipped"] = groups_json(r.skipped);
  if (!r.codes.kind.empty()) j["codes"] = to_json(r.codes);
  j["notes"] = r.notes;
  if (r.lattice.blocks > 0) {
    j["lattice"] = to_json(r.lattice);
    j["lattice"]["sampled"] = r.lattice_sampled;
  }
  if (!r.against.empty()) {
    j["against"] = comparison_json(r.comparison);
    j["against"]["path"] = r.against;
    j["against"]["different"] = r.different;
  }
  Json tensors = Json::array();
  for (const InspectedTensor& t : r.tensors) tensors.push_back(tensor_json(t));
  j["tensors"] = std::move(tensors);
  return j;
}

}  // namespace carat::convert
