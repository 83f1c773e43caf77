// What two models say about one position, from their logits.
//
// Everything is in nats (log base e). The divergence is KL(reference || candidate) =
// sum_v p(v) (log p(v) - log q(v)), with p the reference's and q the candidate's softmax: the
// direction that punishes a candidate for not expecting what the reference expects. Sums are in
// double over all of the vocabulary, in ascending order of tokens; nothing is cut off, and the same
// logits give the same bits on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace carat::audit {

// A token that a model expects.
struct Likely {
  int32_t token = -1;  // -1: none, the vocabulary has fewer
  float probability = 0;
};

inline constexpr int kTopKept = 3;      // most likely tokens that a Position names
inline constexpr int kTopCompared = 5;  // those of which the overlap is counted

// Plain data without padding, so that it can be written to a file as it is.
struct Position {
  double kld = 0;            // KL(reference || candidate), >= 0; exactly 0 for equal logits
  double reference_nll = 0;  // -log p(next)
  double candidate_nll = 0;  // -log q(next)
  float entropy = 0;         // of the reference, nats
  float top5_overlap = 0;    // share of the reference's five most likely in the candidate's five
  int32_t next = 0;          // the token that really follows
  int32_t index = 0;         // tokens of the chunk before it; set by the caller
  // Most likely first, the lower id first on a tie.
  std::array<Likely, kTopKept> reference_top, candidate_top;

  // Both have the same most likely token.
  bool same_top() const { return reference_top[0].token == candidate_top[0].token; }
  // How sure the reference is of its first choice: p(first) - p(second).
  float margin() const { return reference_top[0].probability - reference_top[1].probability; }
  // q(next) - p(next).
  double delta_p() const;
};

// REQUIRES: both rows have the same, positive length; next is a token of it. Logits must be finite
// or -infinity (a token that cannot come); a reference's token with q = 0 makes kld infinite.
[[nodiscard]] Position compare_position(std::span<const float> reference,
                                        std::span<const float> candidate, int32_t next);

// Index of the largest value, the lowest on a tie.
[[nodiscard]] int32_t argmax(std::span<const float> row);

}  // namespace carat::audit
