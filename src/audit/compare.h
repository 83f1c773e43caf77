// What two models say about one position, from their logits.
//
// Everything is in nats (log base e). The divergence is KL(reference || candidate) =
// sum_v p(v) (log p(v) - log q(v)), with p the reference's and q the candidate's softmax: the
// direction that punishes a candidate for not expecting what the reference expects. Sums are in
// double over all of the vocabulary, in ascending order of tokens; nothing is cut off.
#pragma once

#include <cstdint>
#include <span>

namespace carat::audit {

struct Position {
  double kld = 0;            // KL(reference || candidate), >= 0; exactly 0 for equal logits
  double reference_nll = 0;  // -log p(next)
  double candidate_nll = 0;  // -log q(next)
  bool same_top = false;     // both have the same most likely token (the lower id on a tie)
};

// REQUIRES: both rows have the same, positive length; next is a token of it. Logits must be finite
// or -infinity (a token that cannot come); a reference's token with q = 0 makes kld infinite.
[[nodiscard]] Position compare_position(std::span<const float> reference,
                                        std::span<const float> candidate, int32_t next);

// Index of the largest value, the lowest on a tie.
[[nodiscard]] int32_t argmax(std::span<const float> row);

}  // namespace carat::audit
