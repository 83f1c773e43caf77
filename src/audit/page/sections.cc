#include "audit/page/sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

namespace carat::audit::page {
namespace {

// The bytes themselves where their hash is known, else the path.
std::string identity(const ModelText& model) {
  std::set<std::string> hashes;
  for (const FileText& file : model.files) {
    if (file.sha256.empty()) return "path " + model.path;
    hashes.insert(file.sha256);
  }
  if (hashes.empty()) return "path " + model.path;
  std::string all = "files";
  for (const std::string& hash : hashes) all += " " + hash;
  return all + " " + model.kv;
}

// Figures may stand in one table only if this is equal.
std::string basis(const Measured& m, const Run& run) {
  std::string key = identity(m.reference);
  for (const TextText& text : run.texts) {
    key += fmt::format("\ntext {} {}", text.domain,
                       text.file.sha256.empty() ? text.file.path : text.file.sha256);
  }
  key += fmt::format("\n{} {} {} {} {}", run.format, run.context, run.min_context, m.row.tokens,
                     m.row.chunks);
  return key;
}

bool same_row(const Row& a, const Row& b) {
  const auto same = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
  return identity(a.model) == identity(b.model) && a.model.kv == b.model.kv &&
         same(a.mean_kld.value, b.mean_kld.value) && same(a.max_kld, b.max_kld);
}

void mark_front(std::vector<Row>& rows) {
  for (Row& row : rows) {
    row.on_front = row.model.bytes > 0 && std::isfinite(row.mean_kld.value);
    for (const Row& other : rows) {
      if (other.model.bytes <= 0) continue;
      const bool as_good =
          other.model.bytes <= row.model.bytes && other.mean_kld.value <= row.mean_kld.value;
      const bool better =
          other.model.bytes < row.model.bytes || other.mean_kld.value < row.mean_kld.value;
      if (as_good && better) row.on_front = false;
    }
  }
}

std::string_view without(std::string_view path, std::string_view end) {
  return path.size() > end.size() && path.ends_with(end) ? path.substr(0, path.size() - end.size())
                                                         : path;
}

// The last `parts` names of a path, "@kv=..." kept and "@role=..." not.
std::string tail_of(std::string_view path, size_t parts) {
  const size_t at = path.find('@');
  std::string suffix(at == std::string_view::npos ? "" : path.substr(at));
  for (const char* role : {"@role=original", "@role=qat"}) {  // said elsewhere
    if (const size_t r = suffix.find(role); r != std::string::npos) {
      suffix.erase(r, std::string_view(role).size());
    }
  }
  std::string_view file = path.substr(0, at);
  while (file.size() > 1 && file.ends_with('/')) file.remove_suffix(1);
  size_t begin = file.size();
  for (size_t i = 0; i < parts && begin != 0; ++i) {
    const size_t slash = file.rfind('/', begin - 1);
    begin = slash == std::string_view::npos ? 0 : slash;
  }
  std::string_view tail = file.substr(begin);
  while (tail.size() > 1 && tail.starts_with('/')) tail.remove_prefix(1);
  return std::string(without(tail, ".gguf")) + suffix;
}

// As few of the last names of a path as tell the models apart.
void give_names(std::vector<Section>& sections) {
  std::set<std::string> paths;
  const auto each = [&](auto f) {
    for (Section& section : sections) {
      f(section.reference);
      for (Row& row : section.rows) f(row.model);
    }
  };
  each([&](ModelText& m) { paths.insert(m.path); });
  std::map<std::string, std::string> names;
  for (const std::string& path : paths) {
    std::string name = path;
    for (size_t parts = 1; parts <= 8; ++parts) {
      name = tail_of(path, parts);
      const auto twins = std::count_if(paths.begin(), paths.end(), [&](const std::string& other) {
        return tail_of(other, parts) == name;
      });
      if (twins == 1) break;
      name = path;
    }
    names[path] = name.empty() ? "(no name)" : name;
  }
  each([&](ModelText& m) { m.name = m.label = names[m.path]; });
}

// What all names of a section begin with, up to the end of a word.
void give_labels(Section& section) {
  if (section.rows.size() < 2) return;
  const std::string& first = section.rows.front().model.name;
  size_t shared = first.size();
  for (const Row& row : section.rows) {
    const std::string& name = row.model.name;
    size_t same = 0;
    while (same < shared && same < name.size() && name[same] == first[same]) ++same;
    shared = same;
  }
  while (shared > 0 &&
         std::string_view("-_./ ").find(first[shared - 1]) == std::string_view::npos) {
    --shared;
  }
  for (const Row& row : section.rows) {
    if (row.model.name.size() == shared) return;
  }
  for (Row& row : section.rows) row.model.label = row.model.name.substr(shared);
}

}  // namespace

std::string tensor_kind(std::string_view name, int64_t layer) {
  std::string_view rest = without(without(name, ".weight"), ".linear");
  if (layer < 0) return std::string(rest);
  const std::string number = fmt::format(".{}.", layer);
  const size_t at = rest.find(number);
  return std::string(at == std::string_view::npos ? rest : rest.substr(at + number.size()));
}

std::vector<Section> make_sections(std::vector<Measured> measured, std::span<const Run> runs) {
  std::vector<Section> sections;
  std::map<std::string, size_t> places;
  for (Measured& m : measured) {
    const auto [place, fresh] =
        places.try_emplace(basis(m, runs[m.row.places.front().source]), sections.size());
    if (fresh) {
      sections.push_back(
          {.reference = std::move(m.reference), .source = m.row.places.front().source, .rows = {}});
    }
    std::vector<Row>& rows = sections[place->second].rows;
    const auto known = std::find_if(rows.begin(), rows.end(),
                                    [&](const Row& row) { return same_row(row, m.row); });
    if (known == rows.end()) {
      rows.push_back(std::move(m.row));
    } else {
      known->places.push_back(std::move(m.row.places.front()));
    }
  }
  for (Section& section : sections) {
    std::stable_sort(section.rows.begin(), section.rows.end(), [](const Row& a, const Row& b) {
      if (a.mean_kld.value != b.mean_kld.value) return a.mean_kld.value < b.mean_kld.value;
      return a.model.bytes < b.model.bytes;
    });
    mark_front(section.rows);
  }
  give_names(sections);
  for (Section& section : sections) give_labels(section);
  return sections;
}

}  // namespace carat::audit::page
