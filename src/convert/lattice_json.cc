#include "convert/lattice_json.h"

#include <array>
#include <bit>

#include "base/error.h"

namespace carat::convert {
namespace {

// Every count, in the order in which they are written.
constexpr int64_t LatticeStats::*kCounts[] = {
    &LatticeStats::blocks,
    &LatticeStats::blocks_on_lattice,
    &LatticeStats::weights,
    &LatticeStats::weights_bit_exact,
    &LatticeStats::sign_changed_zeros,
    &LatticeStats::zero,
    &LatticeStats::signed8,
    &LatticeStats::absmax7,
    &LatticeStats::other_peak,
    &LatticeStats::scale_exact_in_bf16,
    &LatticeStats::needs_bf16_scale,
    &LatticeStats::needs_f32_scale,
    &LatticeStats::refused,
    &LatticeStats::naive_weights,
    &LatticeStats::naive_weights_bit_exact,
};
constexpr double LatticeStats::*kNumbers[] = {
    &LatticeStats::worst_relative_error,
    &LatticeStats::squared_error,
    &LatticeStats::squared_weights,
};
// A new figure has to be written too, or a resumed conversion would report without it.
static_assert(sizeof(LatticeStats) == 8 * (std::size(kCounts) + std::size(kNumbers) +
                                           std::tuple_size_v<decltype(LatticeStats::codes)>));

}  // namespace

Json full_json(const LatticeStats& stats) {
  Json j = Json::array();
  for (const auto member : kCounts) j.push_back(stats.*member);
  for (const auto member : kNumbers) j.push_back(std::bit_cast<int64_t>(stats.*member));
  for (const int64_t n : stats.codes) j.push_back(n);
  return j;
}

LatticeStats lattice_from_full_json(const Json& json) {
  LatticeStats stats;
  const size_t expected = sizeof(LatticeStats) / 8;
  if (!json.is_array() || json.size() != expected) throw Error("not the findings of a tensor");
  size_t i = 0;
  const auto next = [&] {
    const Json& value = json[i++];
    if (!value.is_number_integer()) throw Error("not the findings of a tensor");
    return value.get<int64_t>();
  };
  for (const auto member : kCounts) stats.*member = next();
  for (const auto member : kNumbers) stats.*member = std::bit_cast<double>(next());
  for (int64_t& n : stats.codes) n = next();
  return stats;
}

}  // namespace carat::convert
