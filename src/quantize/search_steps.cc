#include "quantize/search_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quantize/exchanges.h"
#include "quantize/lagrange.h"

namespace carat::quantize {
namespace {

// Matrices are measured alone in the types that come nearest to so many bits a weight.
constexpr double kProbedBits[] = {0.0, 4.5, 8.5};
// An exchange must measure better by so many standard errors.
constexpr double kSure = 1.5;
constexpr int kHalvings = 3;
constexpr int kKldTries = 8;
// A size that is found for a KLD may keep so much below it.
constexpr double kKldRoom = 0.97;

double bits_of(const MatrixChoices& m, const TypeChoice& t) {
  return 8 * static_cast<double>(t.bytes) / static_cast<double>(*element_count(m.plan.shape));
}

}  // namespace

SearchSteps::SearchSteps(std::span<const MatrixChoices> choices, size_t groups, int64_t fixed_bytes,
                         MixMeter meter)
    : choices_(choices),
      fixed_(fixed_bytes),
      meter_(std::move(meter)),
      model_(choices, make_groups(choices, groups)) {}

int64_t SearchSteps::bytes_of(const Picks& picks) const {
  int64_t bytes = fixed_;
  for (size_t m = 0; m < picks.size(); ++m) bytes += choices_[m].types[picks[m]].bytes;
  return bytes;
}

Picks SearchSteps::smallest() const { return Picks(choices_.size(), 0); }

Picks SearchSteps::largest() const {
  Picks picks;
  for (const MatrixChoices& c : choices_) picks.push_back(c.types.size() - 1);
  return picks;
}

double SearchSteps::predict(const Picks& picks) const {
  return largest_kld_ && picks == largest() ? *largest_kld_ : model_.predict(picks);
}

Klds SearchSteps::measure(std::span<const Pick> picks) {
  ++passes_;
  return meter_.measure(picks);
}

Klds SearchSteps::measure(const Picks& picks) {
  return measure(std::vector<Pick>(picks.begin(), picks.end()));
}

void SearchSteps::begin(const std::string& what, size_t passes) const {
  if (meter_.begin) meter_.begin(what, passes);
}

void SearchSteps::note_step(const std::string& what, const Picks& picks, double measured,
                            bool taken) {
  steps_.push_back({what, bytes_of(picks), predict(picks), measured, taken});
}

Picks SearchSteps::take_largest() {
  Picks picks = largest();
  begin("measuring the largest mix", 1);
  largest_kld_ = measure(picks).mean();
  note_step("the largest types", picks, *largest_kld_, true);
  return picks;
}

// The members' choices that come nearest to so many bits a weight, quantized types before floats.
std::vector<Pick> SearchSteps::probe(const std::vector<size_t>& group, double bits) const {
  std::vector<Pick> picks(choices_.size());
  for (const size_t m : group) {
    double nearest = 1e300;
    for (size_t c = 0; c < choices_[m].types.size(); ++c) {
      const TypeChoice& t = choices_[m].types[c];
      const double off = std::fabs(std::log(bits_of(choices_[m], t) / std::max(bits, 0.1))) +
                         (info(t.dtype).block_elements == 1 ? 100 : 0);
      if (off < nearest) {
        nearest = off;
        picks[m] = c;
      }
    }
  }
  return picks;
}

void SearchSteps::measure_alone() {
  std::vector<std::pair<size_t, std::vector<Pick>>> probes;
  for (size_t g = 0; g < model_.groups().size(); ++g) {
    const std::vector<size_t>& group = model_.groups()[g];
    const size_t first = probes.size();
    for (const double bits : kProbedBits) {
      std::vector<Pick> picks = probe(group, bits);
      const bool known = std::any_of(probes.begin() + static_cast<ptrdiff_t>(first), probes.end(),
                                     [&](const auto& p) { return p.second == picks; });
      // Types that change nothing need no measurement.
      const bool exact = std::all_of(group.begin(), group.end(), [&](size_t m) {
        return choices_[m].types[*picks[m]].error <= 0;
      });
      if (!known && !exact) probes.emplace_back(g, std::move(picks));
    }
  }
  begin("measuring matrices alone", probes.size());
  for (const auto& [group, picks] : probes) {
    model_.add_alone(group, picks, measure(picks).mean());
  }
}

std::optional<Picks> SearchSteps::solve(int64_t size) const {
  const auto found = allocate(model_.offers(), static_cast<double>(size - fixed_));
  return found ? std::optional(found->picks) : std::nullopt;
}

// The fewest bytes that are predicted to keep a mean KLD.
std::optional<Picks> SearchSteps::solve_kld(double kld) const {
  std::vector<std::vector<Offer>> offers = model_.offers();
  for (auto& list : offers) {
    for (Offer& o : list) std::swap(o.use, o.cost);
  }
  const auto found = allocate(offers, kld);
  return found ? std::optional(found->picks) : std::nullopt;
}

// What is predicted to be best where only some matrices may change.
Picks SearchSteps::solve_some(int64_t size, const Picks& now, const std::vector<bool>& free) const {
  std::vector<std::vector<Offer>> offers = model_.offers();
  for (size_t m = 0; m < offers.size(); ++m) {
    if (!free[m]) offers[m] = {offers[m][now[m]]};
  }
  const auto found = allocate(offers, static_cast<double>(size - fixed_));
  Picks picks = now;
  if (!found) return picks;
  for (size_t m = 0; m < picks.size(); ++m) {
    if (free[m]) picks[m] = found->picks[m];
  }
  return picks;
}

Picks SearchSteps::mix_for_size(int64_t size, int rounds, Klds& klds) {
  const std::optional<Picks> solution = solve(size);
  CHECK(solution.has_value());
  Picks now = *solution;
  begin("measuring Lagrange's solution", 1);
  klds = measure(now);
  note_step("alone", now, klds.mean(), true);
  model_.add_mix(now, klds.mean());
  for (int round = 0; round < rounds; ++round) {
    correct(now, klds, round);
    if (!improve(size, now, klds, fmt::format("round {}", round + 1))) break;
  }
  return now;
}

Picks SearchSteps::for_size(int64_t size, int rounds, int exchanges) {
  Klds klds;
  Picks now = mix_for_size(size, rounds, klds);
  exchange(size, exchanges, now, klds);
  return now;
}

// The choice of the hull next to a matrix's present one.
std::optional<size_t> SearchSteps::next(size_t m, size_t choice, bool up) const {
  std::optional<size_t> best;
  const auto& types = choices_[m].types;
  for (const size_t c : lower_hull(model_.offers()[m])) {
    if (up ? c > choice && !best : c < choice) best = c;
  }
  if (!best && up && choice + 1 < types.size()) best = choice + 1;
  return best;
}

// Moves every group up and down in the midst of the mix.
void SearchSteps::correct(const Picks& now, const Klds& klds, int round) {
  std::vector<CostModel::Change> changes;
  for (size_t g = 0; g < model_.groups().size(); ++g) {
    for (const bool up : {true, false}) {
      CostModel::Change change{g, now, now, 0, 0};
      for (const size_t m : model_.groups()[g]) {
        change.after[m] = next(m, now[m], up).value_or(now[m]);
      }
      if (change.after != now) changes.push_back(std::move(change));
    }
  }
  begin(fmt::format("measuring matrices in the mix, round {}", round + 1), changes.size());
  for (CostModel::Change& c : changes) {
    const KldDifference d = difference(klds, measure(c.after));
    c.gain = d.mean;
    c.error = d.error;
  }
  model_.add_changes(changes);
}

// Takes a better mix of that size, if the corrected costs lead to one.
bool SearchSteps::improve(int64_t size, Picks& now, Klds& klds, const std::string& what) {
  std::vector<bool> free(now.size(), true);
  for (int i = 0; i <= kHalvings; ++i) {
    const Picks then = solve_some(size, now, free);
    if (then == now) return false;
    begin("measuring " + what, 1);
    const Klds found = measure(then);
    const bool better = found.mean() < klds.mean();
    note_step(what, then, found.mean(), better);
    if (better) {
      now = then;
      klds = found;
      model_.add_mix(now, klds.mean());
      return true;
    }
    // Half of the changes, those that promised most.
    std::vector<std::pair<double, size_t>> changed;
    for (size_t m = 0; m < now.size(); ++m) {
      if (then[m] == now[m]) continue;
      changed.emplace_back(-std::fabs(model_.cost(m, now[m]) - model_.cost(m, then[m])), m);
    }
    std::sort(changed.begin(), changed.end());
    free.assign(now.size(), false);
    for (size_t k = 0; k < (changed.size() + 1) / 2; ++k) free[changed[k].second] = true;
  }
  return false;
}

// Pairs of matrices, one up and one down, while they measure better.
void SearchSteps::exchange(int64_t size, int most, Picks& now, Klds& klds) {
  Exchanges exchanges;
  begin("exchanging", static_cast<size_t>(most));
  int taken = 0;
  for (int i = 0; i < most; ++i) {
    const double room = static_cast<double>(size - bytes_of(now));
    const auto found = exchanges.next(model_.offers(), now, room);
    if (!found) break;
    const Klds then = measure(*found);
    const KldDifference d = difference(klds, then);
    if (d.mean <= kSure * d.error) continue;
    now = *found;
    klds = then;
    ++taken;
  }
  if (most == 0) return;
  note_step(fmt::format("exchanges, {} taken", taken), now, klds.mean(), true);
  model_.add_mix(now, klds.mean());
}

Picks SearchSteps::for_kld(double kld, int rounds) {
  const Picks most = largest();
  double aim = kld;
  Picks picks = solve_kld(aim).value_or(most);
  for (int i = 0; i < 3; ++i) {
    begin("looking for the size", 1);
    const Klds klds = measure(picks);
    note_step(fmt::format("size for a KLD of {:.4g}", kld), picks, klds.mean(), true);
    if (std::fabs(klds.mean() / kld - 1) < 1 - kKldRoom) break;
    model_.add_mix(picks, klds.mean());
    picks = solve_kld(aim).value_or(most);
  }
  Klds klds;
  picks = mix_for_size(bytes_of(picks), rounds, klds);
  // The chunks that decide nothing else decide the size.
  std::optional<Picks> best;
  for (int i = 0; i < kKldTries; ++i) {
    const double found = meter_.check(picks);
    note_step(fmt::format("size for a KLD of {:.4g}, checked", kld), picks, found, found <= kld);
    if (found <= kld && (!best || bytes_of(picks) < bytes_of(*best))) best = picks;
    if (found <= kld && (found >= kKldRoom * kld || picks == smallest())) break;
    // Between the room and the target, seen from this ratio of measured to predicted.
    aim = model_.predict(picks) * (kld * (1 + kKldRoom) / 2) / std::max(found, 1e-300);
    Picks then = solve_kld(aim).value_or(most);
    if (then == picks) break;
    picks = std::move(then);
  }
  if (!best) {
    const double found = meter_.check(most);
    if (found > kld) {
      throw Error({"no types reach the mean KLD",
                   {},
                   "--kld",
                   fmt::format("at least {:.4g}, that of the largest file of these types ({} "
                               "bytes)",
                               found, bytes_of(most)),
                   fmt::format("{:.4g}", kld),
                   "allow larger types, such as bf16"});
    }
    best = most;
  }
  return *best;
}

}  // namespace carat::quantize
