#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace carat::engine {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

void require(bool ok, const char* name, double got, const char* expected) {
  if (ok) return;
  throw Error(
      {"a sampling option is out of range", "", name, expected, fmt::format("{}", got), ""});
}

// Index of the largest logit, the first one on a tie; -1 if there is none. NaN never wins.
int64_t argmax(std::span<const float> logits) {
  int64_t best = -1;
  float value = kNever;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > value) {
      value = logits[i];
      best = static_cast<int64_t>(i);
    }
  }
  return best;
}

}  // namespace

SamplingOptions sampling_options(const model::GenerationDefaults& defaults) {
  SamplingOptions o;
  o.temperature = defaults.temperature;
  o.top_k = defaults.top_k;
  o.top_p = defaults.top_p;
  o.suppress_ids = defaults.suppress_ids;
  return o;
}

Sampler::Sampler(SamplingOptions options, int64_t vocab_size)
    : options_(std::move(options)), vocab_size_(vocab_size), rng_(options_.seed) {
  const SamplingOptions& o = options_;
  require(o.temperature >= 0 && o.temperature <= 100, "temperature", o.temperature, "0 to 100");
  require(o.top_k >= 0, "top-k", static_cast<double>(o.top_k), "0 or more");
  require(o.top_p > 0 && o.top_p <= 1, "top-p", o.top_p, "above 0, at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "min-p", o.min_p, "0 to 1");
  require(o.repeat_penalty > 0 && o.repeat_penalty <= 100, "repeat penalty", o.repeat_penalty,
          "above 0, at most 100");
  require(o.repeat_window >= 0, "repeat window", static_cast<double>(o.repeat_window), "0 or more");
  for (const int32_t id : o.suppress_ids) {
    require(id >= 0 && id < vocab_size, "suppressed token", id, "a token of the vocabulary");
  }
}

bool Sampler::better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The logits after steps 1 and 2; a copy only if they change anything.
std::span<const float> Sampler::adjusted(std::span<const float> logits,
                                         std::span<const int32_t> history) {
  const bool penalize = options_.repeat_penalty != 1 && options_.repeat_window > 0;
  if (options_.suppress_ids.empty() && !penalize) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  if (penalize) {
    const auto window = static_cast<size_t>(options_.repeat_window);
    std::vector<int32_t> recent(
        history.end() - static_cast<std::ptrdiff_t>(std::min(window, history.size())),
        history.end());
    std::sort(recent.begin(), recent.end());
    recent.erase(std::unique(recent.begin(), recent.end()), recent.end());
    for (const int32_t id : recent) {
      float& z = adjusted_[static_cast<size_t>(id)];
      z = z > 0 ? z / options_.repeat_penalty : z * options_.repeat_penalty;
    }
  }
  for (const int32_t id : options_.suppress_ids) adjusted_[static_cast<size_t>(id)] = kNever;
  return adjusted_;
}

// The k best, best first.
void Sampler::collect(std::span<const float> logits, int64_t k) {
  candidates_.clear();
  const auto limit = static_cast<size_t>(k);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > kNever)) continue;
    const Candidate c{logits[i], static_cast<int32_t>(i)};
    if (candidates_.size() < limit) {
      candidates_.push_back(c);
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    } else if (better(c, candidates_.front())) {  // the front is the worst of the best
      std::pop_heap(candidates_.begin(), candidates_.end(), better);
      candidates_.back() = c;
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    }
  }
  std::sort_heap(candidates_.begin(), candidates_.end(), better);
}

// The fewest best that hold the share `p` of all probability, best first; all of them for 1.
void Sampler::collect_mass(std::span<const float> logits, double p, float best) {
  candidates_.clear();
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > kNever)) continue;
    candidates_.push_back({logits[i], static_cast<int32_t>(i)});
    total += std::exp(static_cast<double>(logits[i] - best) / options_.temperature);
  }
  if (p >= 1) return;  // no order needed to draw
  double mass = 0;
  size_t sorted = 0;
  for (size_t step = 256; sorted < candidates_.size(); step *= 4) {
    const size_t end = std::min(candidates_.size(), sorted + step);
    const auto at = [&](size_t i) { return candidates_.begin() + static_cast<std::ptrdiff_t>(i); };
    std::partial_sort(at(sorted), at(end), candidates_.end(), better);
    for (; sorted < end; ++sorted) {
      mass +=
          std::exp(static_cast<double>(candidates_[sorted].logit - best) / options_.temperature);
      if (mass >= p * total) {
        candidates_.resize(sorted + 1);
        return;
      }
    }
  }
}

int32_t Sampler::draw() {
  double total = 0;
  for (const double w : weights_) total += w;
  double at = rng_.uniform() * total;
  size_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] <= 0) continue;
    last = i;
    at -= weights_[i];
    if (at < 0) break;
  }
  return candidates_[last].id;
}

int32_t Sampler::sample(std::span<const float> raw, std::span<const int32_t> history) {
  CHECK(static_cast<int64_t>(raw.size()) == vocab_size_);
  const std::span<const float> logits = adjusted(raw, history);
  const int64_t best = argmax(logits);
  if (best < 0 || !std::isfinite(logits[static_cast<size_t>(best)])) {
    throw Error({"the model's logits are not numbers", "", "", "", "",
                 "the checkpoint may be damaged; compare its checksum"});
  }
  if (options_.temperature == 0) return static_cast<int32_t>(best);
  const float top = logits[static_cast<size_t>(best)];

  const bool limited = options_.top_k > 0 && options_.top_k < vocab_size_;
  if (limited) {
    collect(logits, options_.top_k);
  } else {
    collect_mass(logits, options_.top_p, top);
  }
  weights_.clear();
  double total = 0;
  for (const Candidate& c : candidates_) {
    const double w = std::exp(static_cast<double>(c.logit - top) / options_.temperature);
    weights_.push_back(w);
    total += w;
  }
  if (limited && options_.top_p < 1) {
    size_t n = 0;
    for (double mass = 0; n < weights_.size() && mass < options_.top_p * total; ++n) {
      mass += weights_[n];
    }
    weights_.resize(n);
  }
  // The best has weight 1, so a weight is a probability relative to it.
  for (double& w : weights_) {
    if (w < options_.min_p) w = 0;
  }
  return draw();
}

}  // namespace carat::engine
