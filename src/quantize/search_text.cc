#include "quantize/search_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "quantize/kld_meter.h"

namespace carat::quantize {
namespace {

// n of `count` indices, evenly.
std::vector<size_t> evenly(size_t count, size_t n) {
  std::vector<size_t> indices;
  for (size_t i = 0; i < n; ++i) indices.push_back((2 * i + 1) * count / (2 * n));
  return indices;
}

}  // namespace

SearchText split_text(std::span<const std::vector<int32_t>> chunks, int64_t search_tokens,
                      int64_t check_tokens) {
  std::vector<size_t> usable;
  int64_t tokens = 0, all = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto n = static_cast<int64_t>(chunks[i].size());
    all += n;
    if (n <= KldMeter::kFewestBefore) continue;
    usable.push_back(i);
    tokens += n;
  }
  constexpr size_t kFewest = 4;
  if (usable.size() < kFewest) {
    // Each would need that many tokens.
    const bool enough = all >= static_cast<int64_t>(kFewest) * 2 * KldMeter::kFewestBefore;
    const bool longer = chunks.size() >= kFewest;
    const char* const hint = !enough  ? "give it more text"
                             : longer ? "let chunks be longer (--context)"
                                      : "give it more text, or smaller chunks (--context)";
    throw Error(
        {"too little text to choose types by",
         {},
         "--text",
         fmt::format("at least {} chunks of more than {} tokens", kFewest, KldMeter::kFewestBefore),
         fmt::format("{} of {} chunks", usable.size(), chunks.size()),
         hint});
  }
  const auto chunk = std::max<int64_t>(1, tokens / static_cast<int64_t>(usable.size()));
  const auto wanted = [&](int64_t n, size_t most) {
    return std::clamp<size_t>(static_cast<size_t>(std::max<int64_t>(n, 0) / chunk), 2, most);
  };
  SearchText text;
  const size_t n_check = wanted(check_tokens, std::max<size_t>(2, usable.size() * 2 / 5));
  std::vector<bool> taken(usable.size());
  for (const size_t i : evenly(usable.size(), n_check)) {
    taken[i] = true;
    text.check.push_back(chunks[usable[i]]);
  }
  std::vector<size_t> rest;
  for (size_t i = 0; i < usable.size(); ++i) {
    if (!taken[i]) rest.push_back(usable[i]);
  }
  for (const size_t i : evenly(rest.size(), wanted(search_tokens, rest.size()))) {
    text.search.push_back(chunks[rest[i]]);
  }
  return text;
}

}  // namespace carat::quantize
