// The steps of a search (search.h) over whatever measures a mix: which mixes are measured, what is
// concluded from them, and which one is taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quantize/choices.h"
#include "quantize/cost_model.h"
#include "quantize/kld_meter.h"
#include "quantize/mix.h"
#include "quantize/search.h"

namespace carat::quantize {

using Picks = std::vector<size_t>;  // of each matrix, an index of its types

struct MixMeter {
  // On the chunks that decide.
  std::function<Klds(std::span<const Pick>)> measure;
  // The mean on the chunks that check: of for_kld() only.
  std::function<double(const Picks&)> check;
  // So many measurements come next; may be empty.
  std::function<void(const std::string& what, size_t passes)> begin;
};

class SearchSteps {
 public:
  // `choices` outlives it; `fixed_bytes` are the file's without them. At most `groups` groups of
  // matrices are measured together.
  SearchSteps(std::span<const MatrixChoices> choices, size_t groups, int64_t fixed_bytes,
              MixMeter meter);

  int64_t bytes_of(const Picks& picks) const;  // of the file
  Picks smallest() const;
  Picks largest() const;

  // The largest mix, measured and predicted to be what it measures.
  Picks take_largest();
  void measure_alone();
  // REQUIRES (of all below): measure_alone() was called.
  // Lagrange's solution, rounds and exchanges; at most so many bytes. REQUIRES: the smallest file
  // is no larger.
  Picks for_size(int64_t size, int rounds, int exchanges);
  // The smallest file that is checked to have at most this mean KLD. Throws Error if the largest
  // one has more.
  Picks for_kld(double kld, int rounds);

  // By what costs are known to be now; nothing if no mix is so small.
  std::optional<Picks> solve(int64_t size) const;
  double predict(const Picks& picks) const;
  const std::vector<SearchStep>& steps() const { return steps_; }
  int64_t passes() const { return passes_; }  // measurements on the chunks that decide

 private:
  Klds measure(std::span<const Pick> picks);
  Klds measure(const Picks& picks);
  void begin(const std::string& what, size_t passes) const;
  void note_step(const std::string& what, const Picks& picks, double measured, bool taken);
  std::vector<Pick> probe(const std::vector<size_t>& group, double bits) const;
  std::optional<Picks> solve_kld(double kld) const;
  Picks solve_some(int64_t size, const Picks& now, const std::vector<bool>& free) const;
  std::optional<size_t> next(size_t matrix, size_t choice, bool up) const;
  void correct(const Picks& now, const Klds& klds, int round);
  bool improve(int64_t size, Picks& now, Klds& klds, const std::string& what);
  void exchange(int64_t size, int most, Picks& now, Klds& klds);
  Picks mix_for_size(int64_t size, int rounds, Klds& klds);

  std::span<const MatrixChoices> choices_;
  int64_t fixed_;
  MixMeter meter_;
  CostModel model_;
  std::optional<double> largest_kld_;  // of take_largest()
  std::vector<SearchStep> steps_;
  int64_t passes_ = 0;
};

}  // namespace carat::quantize
