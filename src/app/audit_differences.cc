#include "app/audit_differences.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "app/table.h"

namespace carat::app {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kShortestPath = 20;

// The end of a path tells files apart.
std::string path_text(const std::string& path, size_t most) {
  if (path.size() <= most) return path;
  size_t begin = path.size() - (most - 3);
  while (begin < path.size() && (path[begin] & 0xc0) == 0x80) ++begin;  // no half characters
  return "..." + path.substr(begin);
}

// So many that the largest number shows three that matter; five, as in the other tables, at least.
int digits_of(const audit::Figure& nats) {
  double size = std::abs(nats.value);
  if (nats.interval) {
    size = std::max({size, std::abs(nats.interval->low), std::abs(nats.interval->high)});
  }
  if (!(size > 0)) return 5;
  if (size >= 10) return 2;
  return std::clamp(2 - static_cast<int>(std::floor(std::log10(size))), 5, 8);
}

std::string nats_text(const audit::Figure& f) {
  const int digits = digits_of(f);
  std::string text = fmt::format("{:.{}f}", f.value, digits);
  if (f.interval) {
    text += fmt::format(" ({:.{}f}..{:.{}f})", f.interval->low, digits, f.interval->high, digits);
  }
  return text;
}

// Four digits of the ratio that matter, its interval with as many decimals.
std::string ratio_text(const std::optional<audit::Figure>& f) {
  if (!f) return "-";
  const int digits = f->value < 10 ? 3 : f->value < 100 ? 2 : f->value < 1000 ? 1 : 0;
  std::string text = fmt::format("{:.{}f}", f->value, digits);
  if (f->interval) {
    text += fmt::format(" ({:.{}f}..{:.{}f})", f->interval->low, digits, f->interval->high, digits);
  }
  return text;
}

std::string word(const std::optional<bool>& apart) {
  if (!apart) return "unknown";
  return *apart ? "apart" : "not apart";
}

// The candidate with the lowest mean KLD from the reference.
std::optional<size_t> closest(const audit::AuditReport& report, size_t reference) {
  const audit::Comparison* best = nullptr;
  for (const audit::Comparison& c : report.comparisons) {
    if (c.reference != reference || !std::isfinite(c.summary.mean_kld.value)) continue;
    if (!best || c.summary.mean_kld.value < best->summary.mean_kld.value) best = &c;
  }
  return best ? std::optional(best->candidate) : std::nullopt;
}

// Each other candidate against the closest.
std::vector<audit::Difference> against(const audit::AuditReport& report, size_t reference,
                                       size_t best) {
  std::vector<audit::Difference> list;
  for (const audit::Difference& d : report.differences) {
    if (d.reference != reference) continue;
    if (d.baseline == best) list.push_back(d);
    if (d.candidate == best) list.push_back(d.reversed());
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return a.candidate < b.candidate; });
  return list;
}

}  // namespace

std::string differences_text(const audit::AuditReport& report, size_t reference) {
  const std::optional<size_t> best = closest(report, reference);
  if (!best) return {};
  std::vector<std::vector<std::string>> rows;
  size_t nats = 0, ratio = 0;  // widths of columns
  for (const audit::Difference& d : against(report, reference, *best)) {
    rows.push_back({report.candidates.at(d.candidate).path, nats_text(d.mean_kld),
                    ratio_text(d.kld_ratio), word(d.apart())});
    nats = std::max(nats, rows.back()[1].size());
    ratio = std::max(ratio, rows.back()[2].size());
  }
  if (rows.empty()) return {};
  constexpr size_t kOthers = std::string_view("not apart").size() + 3 * 2;
  const size_t others = std::min(kColumns, nats + ratio + kOthers);
  const size_t room = std::max(kShortestPath, kColumns - others);
  Table table({"candidate", "more KLD", "times", "paired"});
  for (auto& row : rows) {
    row[0] = path_text(row[0], room);
    table.add(std::move(row));
  }
  constexpr std::string_view kTitle = "beside the closest on the same tokens, ";
  const std::string& path = report.candidates.at(*best).path;
  return fmt::format("{}{}\n{}", kTitle, path_text(path, kColumns - kTitle.size()), table.text());
}

}  // namespace carat::app
