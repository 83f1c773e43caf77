// Pairs of candidates, wherever a document has measured both over the same tokens.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "audit/figure.h"
#include "audit/page/document.h"
#include "audit/page/svg.h"

namespace carat::audit::page {

// The row beside the baseline: its figures less the baseline's, or by them. Nothing if no document
// has the two together, or not with finite figures.
[[nodiscard]] std::optional<PairText> beside(const Row& row, const Row& baseline,
                                             std::span<const Run> runs);

// From numbers of either sign to pixels: even around 0, where `unit` lies, and logarithmic far from
// it.
struct SignedScale {
  double from = 0, to = 1;  // values
  double unit = 1;
  double begin = 0, end = 1;  // pixels
  double operator()(double value) const;
};

// Holds 0 and all of the figures with their intervals; the narrowest interval at 0 can be seen.
[[nodiscard]] SignedScale signed_scale(std::span<const Figure> figures, double begin, double end);

// 0, powers of ten and 2 and 5 times them, of which no two names meet at a font size.
[[nodiscard]] std::vector<Tick> signed_ticks(const SignedScale& scale, double font);

}  // namespace carat::audit::page
