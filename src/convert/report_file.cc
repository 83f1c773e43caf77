#include "convert/report_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace carat::convert {
namespace {

using model::TensorKind;

struct NamedRule {
  const char* text;
  int64_t LatticeStats::*count;
};
constexpr std::array<NamedRule, 3> kRules = {{{"signed extremum / -8", &LatticeStats::signed8},
                                              {"absmax / 7", &LatticeStats::absmax7},
                                              {"peak below 7", &LatticeStats::other_peak}}};

std::vector<int> unused_codes(const LatticeStats& stats) {
  std::vector<int> unused;
  for (size_t c = 0; c < stats.codes.size(); ++c) {
    if (stats.codes[c] == 0) unused.push_back(static_cast<int>(c));
  }
  return unused;
}

bool has_codes(const LatticeStats& stats) {
  return std::any_of(stats.codes.begin(), stats.codes.end(), [](int64_t n) { return n > 0; });
}

}  // namespace

const char* class_name(TensorKind kind) {
  switch (kind) {
    case TensorKind::kTokenEmbedding:
      return "token embedding";
    case TensorKind::kLmHead:
      return "output matrix";
    case TensorKind::kPleTable:
      return "per-layer table";
    case TensorKind::kPleProjection:
      return "per-layer projection";
    case TensorKind::kPleGate:
    case TensorKind::kPleOut:
      return "per-layer gates";
    case TensorKind::kQ:
    case TensorKind::kK:
    case TensorKind::kV:
    case TensorKind::kO:
      return "attention";
    case TensorKind::kGate:
    case TensorKind::kUp:
    case TensorKind::kDown:
      return "feed-forward";
    case TensorKind::kExpertsGateUp:
    case TensorKind::kExpertsDown:
      return "experts";
    case TensorKind::kRouter:
      return "router";
    default:
      return "norms and scalars";
  }
}

std::vector<ClassReport> class_reports(const std::vector<TensorReport>& tensors) {
  std::vector<ClassReport> classes;
  for (const TensorReport& t : tensors) {
    const std::string name = t.class_name.empty() ? "others" : t.class_name;
    auto found = std::find_if(classes.begin(), classes.end(),
                              [&](const ClassReport& c) { return c.name == name; });
    if (found == classes.end()) {
      classes.push_back({});
      found = classes.end() - 1;
      found->name = name;
    }
    ++found->tensors;
    found->kept += !t.note.empty();
    found->bytes += t.bytes;
    found->weights += t.weights;
    found->weights_bit_exact += t.weights_bit_exact;
    found->lattice.add(t.lattice);
  }
  return classes;
}

std::string rule_text(const LatticeStats& stats) {
  if (stats.blocks == 0) return {};
  const int64_t known = stats.signed8 + stats.absmax7 + stats.other_peak;
  if (known == 0) return stats.zero > 0 ? "all zero" : "none";
  const auto most = std::max_element(
      kRules.begin(), kRules.end(),
      [&](const NamedRule& a, const NamedRule& b) { return stats.*a.count < stats.*b.count; });
  const int64_t n = stats.*most->count, of = stats.blocks - stats.zero;
  if (n == of) return most->text;
  const double percent = 100.0 * static_cast<double>(n) / static_cast<double>(of);
  return fmt::format("{} ({:.2f} %)", most->text, std::min(percent, 99.99));
}

std::string unused_codes_text(const LatticeStats& stats) {
  if (!has_codes(stats)) return {};
  const std::vector<int> unused = unused_codes(stats);
  if (unused.empty()) return "none";
  return fmt::format("{}", fmt::join(unused, " "));
}

std::array<std::string, 16> code_shares(const LatticeStats& stats) {
  std::array<std::string, 16> shares;
  const int64_t all = std::accumulate(stats.codes.begin(), stats.codes.end(), int64_t{0});
  if (all == 0) return shares;
  for (size_t c = 0; c < shares.size(); ++c) {
    const double percent = 100.0 * static_cast<double>(stats.codes[c]) / static_cast<double>(all);
    shares[c] = stats.codes[c] == 0 ? "-" : percent < 1 ? "<1" : fmt::format("{:.0f}", percent);
  }
  return shares;
}

Json to_json(const std::vector<ClassReport>& classes) {
  Json list = Json::array();
  for (const ClassReport& c : classes) {
    Json j{{"name", c.name},   {"tensors", c.tensors}, {"kept", c.kept},
           {"bytes", c.bytes}, {"weights", c.weights}, {"weights_bit_exact", c.weights_bit_exact}};
    if (c.lattice.blocks > 0) {
      j["rule"] = rule_text(c.lattice);
      if (has_codes(c.lattice)) j["unused_codes"] = unused_codes(c.lattice);
      j["lattice"] = to_json(c.lattice);
    }
    list.push_back(std::move(j));
  }
  return list;
}

std::string report_path(const std::string& target) {
  const size_t end = target.find_last_not_of('/');
  return target.substr(0, end == std::string::npos ? 0 : end + 1) + ".carat.json";
}

void write_report_file(const ConvertReport& report) {
  AtomicFile file(report_path(report.options.target));
  file.write(to_json_text(to_json(report), 2) + "\n");
  file.commit();
}

}  // namespace carat::convert
