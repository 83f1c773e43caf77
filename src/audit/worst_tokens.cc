#include "audit/worst_tokens.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "base/error.h"

namespace carat::audit {
namespace {

struct Place {
  double kld = 0;
  size_t chunk = 0;
  size_t at = 0;  // in the chunk's positions

  bool worse_than(const Place& other) const {
    if (kld != other.kld) return kld > other.kld;
    if (chunk != other.chunk) return chunk < other.chunk;
    return at < other.at;
  }
};

std::vector<Expected> expected(const std::array<Likely, kTopKept>& top) {
  std::vector<Expected> out;
  for (const Likely& likely : top) {
    if (likely.token < 0) continue;
    out.push_back({.token = likely.token, .probability = static_cast<double>(likely.probability)});
  }
  return out;
}

WorstToken worst_token(const Position& p, size_t chunk) {
  WorstToken w;
  w.kld = p.kld;
  w.chunk = static_cast<int64_t>(chunk);
  w.index = p.index;
  w.next = p.next;
  w.reference_probability = std::exp(-p.reference_nll);
  w.candidate_probability = std::exp(-p.candidate_nll);
  w.reference_top = expected(p.reference_top);
  w.candidate_top = expected(p.candidate_top);
  return w;
}

}  // namespace

std::vector<WorstToken> find_worst(std::span<const std::vector<Position>> chunks, size_t most) {
  const auto worse = [](const Place& a, const Place& b) { return a.worse_than(b); };
  std::priority_queue<Place, std::vector<Place>, decltype(worse)> kept(worse);  // best on top
  for (size_t c = 0; c < chunks.size(); ++c) {
    for (size_t i = 0; i < chunks[c].size(); ++i) {
      const Place place = {chunks[c][i].kld, c, i};
      if (!(place.kld > 0)) continue;
      kept.push(place);
      if (kept.size() > most) kept.pop();
    }
  }
  std::vector<WorstToken> worst;
  for (; !kept.empty(); kept.pop()) {
    const Place& place = kept.top();
    worst.push_back(worst_token(chunks[place.chunk][place.at], place.chunk));
  }
  std::reverse(worst.begin(), worst.end());
  return worst;
}

void describe(std::span<WorstToken> worst, const ChunkTokens& tokens_of, const Decode& decode) {
  for (WorstToken& w : worst) {
    const std::span<const int32_t> tokens = tokens_of(w.chunk);
    const auto at = static_cast<size_t>(w.index);
    CHECK(at < tokens.size() && tokens[at] == w.next);
    const size_t before = std::min(at, kTokensBefore);
    w.before = decode(tokens.subspan(at - before, before));
    w.next_text = decode(tokens.subspan(at, 1));
    w.after = decode(tokens.subspan(at + 1, std::min(kTokensAfter, tokens.size() - at - 1)));
    for (std::vector<Expected>* tops : {&w.reference_top, &w.candidate_top}) {
      for (Expected& e : *tops) e.text = decode(std::span(&e.token, 1));
    }
  }
}

}  // namespace carat::audit
