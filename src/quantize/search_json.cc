#include <algorithm>
#include <cctype>

#include "base/file.h"
#include "quantize/search.h"

namespace carat::quantize {
namespace {

Json to_json(const audit::Figure& f, const char* key) {
  Json j;
  j[key] = f.value;
  const std::string interval = std::string(key) + "_interval";
  j[interval] = f.interval ? Json{f.interval->low, f.interval->high} : Json(nullptr);
  return j;
}

std::string lower_name(DType type) {
  std::string name = name_of(type);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

}  // namespace

Json to_json(const SearchReport& r) {
  Json j;
  if (r.options.size) j["size"] = *r.options.size;
  if (r.options.kld) j["kld"] = *r.options.kld;
  j["smallest"] = r.smallest;
  j["largest"] = r.largest;
  j["bytes"] = r.bytes;
  j["predicted_kld"] = r.predicted;
  j.update(to_json(r.measured, "mean_kld"));
  if (r.written) j["written"] = to_json(*r.written, "mean_kld");
  j["search_positions"] = r.search_positions;
  j["check_positions"] = r.check_positions;
  j["check_chunks"] = r.check_chunks;
  j["passes"] = r.passes;
  j["steps"] = Json::array();
  for (const SearchStep& s : r.steps) {
    j["steps"].push_back({{"what", s.what},
                          {"bytes", s.bytes},
                          {"predicted_kld", s.predicted},
                          {"mean_kld", s.measured},
                          {"taken", s.taken}});
  }
  j["front"] = Json::array();
  for (const FrontPoint& p : r.front) {
    Json point = {{"bytes", p.bytes}, {"predicted_kld", p.predicted}, {"chosen", p.chosen}};
    point.update(to_json(p.measured, "mean_kld"));
    j["front"].push_back(std::move(point));
  }
  j["notes"] = r.notes;
  return j;
}

void write_recipe(const std::string& path, const convert::Recipe& recipe, const Json& about) {
  Json j;
  j["recipe"] = recipe.base;
  if (!about.empty()) j["about"] = about;
  j["tensors"] = Json::object();
  for (const auto& [name, type] : recipe.tensors) j["tensors"][name] = lower_name(type);
  AtomicFile file(path);
  file.write(to_json_text(j, 2) + "\n");
  file.commit();
}

}  // namespace carat::quantize
