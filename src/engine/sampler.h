// From logits to the next token.
//
// The steps, in this order (that of Hugging Face's generate):
//   1. suppressed tokens leave;
//   2. repeat penalty r: a logit z of a token among the last `repeat_window` becomes z / r if
//      positive and z * r otherwise;
//   3. temperature 0: the largest logit, the lower id on a tie. Otherwise z / temperature;
//   4. top-k: the k largest stay;
//   5. top-p: the fewest largest whose probabilities, taken among those left, reach p;
//   6. min-p: those with at least p times the probability of the best;
//   7. one of the rest by its probability.
// A pass over the vocabulary and a small heap: nothing of vocabulary size is sorted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "model/load.h"

namespace carat::engine {

struct SamplingOptions {
  float temperature = 1.0f;     // >= 0
  int64_t top_k = 64;           // 0: off
  float top_p = 0.95f;          // in (0, 1]; 1: off
  float min_p = 0.0f;           // in [0, 1]; 0: off
  float repeat_penalty = 1.0f;  // > 0; 1: off
  int64_t repeat_window = 64;
  uint64_t seed = 0;
  std::vector<int32_t> suppress_ids;
};

// What the checkpoint recommends.
SamplingOptions sampling_options(const model::GenerationDefaults& defaults);

// The same seed, logits and history give the same tokens on every machine of one ISA.
class Sampler {
 public:
  // Throws Error naming the option that is out of range.
  Sampler(SamplingOptions options, int64_t vocab_size);

  // `history`: the tokens so far, the latest last. Throws Error if no logit is a finite number.
  // REQUIRES: logits.size() == vocab_size.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  static bool better(const Candidate& a, const Candidate& b);
  std::span<const float> adjusted(std::span<const float> logits, std::span<const int32_t> history);
  void collect(std::span<const float> logits, int64_t k);
  void collect_mass(std::span<const float> logits, double p, float best);
  int32_t draw();

  SamplingOptions options_;
  int64_t vocab_size_;
  Rng rng_;
  std::vector<float> adjusted_;
  std::vector<Candidate> candidates_;  // best first after collect
  std::vector<double> weights_;
};

}  // namespace carat::engine
