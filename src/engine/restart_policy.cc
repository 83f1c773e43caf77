#include "engine/restart_policy.h"

#include <algorithm>

#include "base/checked.h"

namespace carat::engine {
namespace {

constexpr size_t kFirstTurns = 2, kLastTurns = 2;  // the first may be that of the system
constexpr int64_t kShortest = 16;                  // tokens that are worth a point
constexpr int64_t kLeastSpacing = 1024;

}  // namespace

std::vector<int64_t> RestartPolicy::in_prompt(std::span<const int32_t> tokens) const {
  const auto n = static_cast<int64_t>(tokens.size());
  std::vector<int64_t> turns, points;
  if (turn_id >= 0) {
    for (int64_t i = 1; i < n; ++i) {
      if (tokens[static_cast<size_t>(i)] == turn_id) turns.push_back(i);
    }
  }
  for (size_t i = 0; i < turns.size(); ++i) {
    const bool kept = i < kFirstTurns || i + kLastTurns >= turns.size();
    if (kept && turns[i] >= kShortest) points.push_back(turns[i]);
  }
  for (int64_t i = every; every > 0 && i < n; i += every) points.push_back(i);
  if (n > 1) points.push_back(n - 1);
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

RestartPolicy restart_policy(const model::Model& model, const model::KvLayout& layout) {
  RestartPolicy p;
  if (model.tokenizer != nullptr) p.turn_id = model.tokenizer->vocab().special.turn_begin;
  int64_t spacing = kLeastSpacing;
  if (layout.global_bytes > 0) {
    const int64_t window = layout.window + kernels::kKvPageTokens;
    spacing = std::max(spacing, window * layout.local_bytes / layout.global_bytes);
  }
  p.every = round_up(spacing, kernels::kKvPageTokens);
  return p;
}

}  // namespace carat::engine
