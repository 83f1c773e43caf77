#include "convert/loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace carat::convert {
namespace {

struct LossName {
  Loss loss;
  const char* name;
};
constexpr LossName kNames[] = {{Loss::kRoundedWeights, "rounded-weights"},
                               {Loss::kRoundedScales, "rounded-scales"},
                               {Loss::kDroppedActivationScales, "dropped-activation-scales"},
                               {Loss::kDroppedCacheScales, "dropped-cache-scales"}};

}  // namespace

const char* name_of(Loss loss) {
  for (const LossName& n : kNames) {
    if (n.loss == loss) return n.name;
  }
  CHECK(false);
}

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const LossName& n : kNames) names.emplace_back(n.name);
  return names;
}

Losses Losses::from_text(std::string_view text) {
  Losses losses;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    const LossName* known = nullptr;
    for (const LossName& n : kNames) {
      if (word == n.name) known = &n;
    }
    if (known == nullptr) {
      throw Error({"no such loss", "", "--accept", fmt::format("{}", fmt::join(loss_names(), ", ")),
                   std::string(word), ""});
    }
    losses.add(known->loss);
  }
  return losses;
}

bool Losses::accepts(Loss loss) const {
  if ((bits_ & static_cast<uint8_t>(loss)) != 0) return true;
  return loss == Loss::kDroppedCacheScales && accepts(Loss::kDroppedActivationScales);
}

std::string Losses::text() const {
  std::string text;
  for (const LossName& n : kNames) {
    if ((bits_ & static_cast<uint8_t>(n.loss)) == 0) continue;
    text += (text.empty() ? "" : ",") + std::string(n.name);
  }
  return text;
}

void ErrorSums::add(const ErrorSums& other) {
  squared_error += other.squared_error;
  squared_weights += other.squared_weights;
  worst_relative = std::max(worst_relative, other.worst_relative);
}

double ErrorSums::relative_rms() const {
  return squared_weights > 0 ? std::sqrt(squared_error / squared_weights) : 0.0;
}

ErrorSums measure_error(const float* weights, const float* written, int64_t n, int64_t group) {
  ErrorSums sums;
  for (int64_t begin = 0; begin < n; begin += group) {
    const int64_t end = std::min(n, begin + group);
    double largest = 0, worst = 0;
    for (int64_t i = begin; i < end; ++i) {
      const double w = weights[i], e = std::abs(written[i] - w);
      largest = std::max(largest, std::abs(w));
      worst = std::max(worst, e);
      sums.squared_error += e * e;
      sums.squared_weights += w * w;
    }
    if (worst > 0) {
      sums.worst_relative = std::max(sums.worst_relative, largest > 0 ? worst / largest : 1.0);
    }
  }
  return sums;
}

}  // namespace carat::convert
