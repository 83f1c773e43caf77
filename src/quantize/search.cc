#include "quantize/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/sha256.h"
#include "quantize/choices.h"
#include "quantize/cost_model.h"
#include "quantize/exchanges.h"
#include "quantize/kld_meter.h"
#include "quantize/lagrange.h"
#include "quantize/measure_log.h"
#include "quantize/mix.h"
#include "quantize/search_text.h"

namespace carat::quantize {
namespace {

using Picks = std::vector<size_t>;

// Matrices are measured alone in the types that come nearest to so many bits a weight.
constexpr double kProbedBits[] = {0.0, 4.5, 8.5};
// An exchange must measure better by so many standard errors.
constexpr double kSure = 1.5;
constexpr int kHalvings = 3;
constexpr int kKldTries = 8;
// A size that is found for a KLD may keep so much below it.
constexpr double kKldRoom = 0.97;
// A prediction that is further off, and outside of the interval, is noted.
constexpr double kMissed = 0.15;

double bits_of(const MatrixChoices& m, const TypeChoice& t) {
  return 8 * static_cast<double>(t.bytes) / static_cast<double>(*element_count(m.plan.shape));
}

std::string size_text(int64_t bytes) { return fmt::format("{} bytes", bytes); }

class Search {
 public:
  Search(const Job& job, const SearchOptions& options, int64_t fixed, const std::string& target)
      : job_(job),
        options_(options),
        fixed_(fixed),
        text_(split_text(job.chunks, options.search_tokens, options.check_tokens)),
        choices_(list_choices(job, options.types.empty() ? writable_types() : options.types)),
        model_(choices_, make_groups(choices_, options.groups)),
        mix_(job, choices_, target, job.memory / 4),
        meter_({&job.source.weights, text_.search, job.memory / 4, job.stop,
                [this](int64_t n) { advance(n); }},
               job.pool, job.table),
        log_(options.state, digest(), meter_.counts()),
        check_({&job.source.weights, text_.check, job.memory / 4, job.stop, {}}, job.pool,
               job.table) {
    report_.options = options;
    report_.search_positions = meter_.positions();
    report_.check_positions = check_.positions();
  }

  SearchReport run() {
    Picks smallest, largest;
    for (const MatrixChoices& c : choices_) {
      smallest.push_back(0);
      largest.push_back(c.types.size() - 1);
    }
    report_.smallest = bytes_of(smallest);
    report_.largest = bytes_of(largest);
    if (options_.size) check_size(*options_.size);
    measure_alone();
    Picks picks;
    if (options_.size) {
      picks = search_size(*options_.size);
      exchange(picks);
    } else {
      picks = search_kld(*options_.kld, largest);
    }
    finish(picks);
    return std::move(report_);
  }

 private:
  // Of all that a measurement depends on: the weights and what their columns count are seen in the
  // errors.
  std::string digest() const {
    Sha256 sum;
    const auto add = [&](const void* data, size_t size) {
      sum.update({static_cast<const std::byte*>(data), size});
    };
    for (const auto& chunk : text_.search) {
      const uint64_t n = chunk.size();
      add(&n, sizeof n);
      add(chunk.data(), chunk.size() * sizeof chunk[0]);
    }
    for (const MatrixChoices& m : choices_) {
      add(m.plan.name.data(), m.plan.name.size());
      for (const TypeChoice& t : m.types) {
        add(&t.dtype, sizeof t.dtype);
        add(&t.bytes, sizeof t.bytes);
        add(&t.error, sizeof t.error);
      }
    }
    return to_hex(sum.digest());
  }

  int64_t bytes_of(const Picks& picks) const {
    int64_t bytes = fixed_;
    for (size_t m = 0; m < picks.size(); ++m) bytes += choices_[m].types[picks[m]].bytes;
    return bytes;
  }

  void check_size(int64_t size) const {
    if (size >= report_.smallest && size < report_.largest) return;
    const bool small = size < report_.smallest;
    throw Error({small ? "no types make the file so small" : "the file needs no smaller types",
                 {},
                 "--size",
                 report_.smallest == report_.largest
                     ? size_text(report_.largest) + ", the only size of these types"
                     : fmt::format("from {} to less than {}", size_text(report_.smallest),
                                   size_text(report_.largest)),
                 size_text(size),
                 small ? "allow smaller types, or take a smaller model"
                       : "carat convert --to gguf writes it with nothing lost"});
  }

  void begin_stage(const std::string& what, size_t passes) {
    stage_ = what;
    done_ = 0;
    total_ = static_cast<int64_t>(passes) * meter_.tokens();
  }

  void advance(int64_t tokens) {
    done_ += tokens;
    if (job_.progress && !stage_.empty()) {
      job_.progress(std::min(done_, total_), std::max<int64_t>(total_, 1), stage_);
    }
  }

  Klds measure(std::span<const Pick> picks) {
    ++report_.passes;
    if (const Klds* known = log_.find(picks)) {
      advance(meter_.tokens());
      return *known;
    }
    mix_.set(picks);
    Klds klds = meter_.measure(mix_.weights());
    log_.add(picks, klds);
    return klds;
  }
  Klds measure(const Picks& picks) {
    return measure(std::vector<Pick>(picks.begin(), picks.end()));
  }

  void note_step(const std::string& what, const Picks& picks, const Klds& klds, bool taken) {
    report_.steps.push_back({what, bytes_of(picks), model_.predict(picks), klds.mean(), taken});
  }

  // The members' choices that come nearest to so many bits a weight, quantized types before floats.
  std::vector<Pick> probe(const std::vector<size_t>& group, double bits) const {
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

  void measure_alone() {
    std::vector<std::pair<size_t, std::vector<Pick>>> probes;
    for (size_t g = 0; g < model_.groups().size(); ++g) {
      const size_t first = probes.size();
      for (const double bits : kProbedBits) {
        std::vector<Pick> picks = probe(model_.groups()[g], bits);
        const bool known = std::any_of(probes.begin() + static_cast<ptrdiff_t>(first), probes.end(),
                                       [&](const auto& p) { return p.second == picks; });
        if (!known) probes.emplace_back(g, std::move(picks));
      }
    }
    begin_stage("measuring matrices alone", probes.size());
    for (const auto& [group, picks] : probes) {
      model_.add_alone(group, picks, measure(picks).mean());
    }
  }

  std::optional<Picks> solve(int64_t size) const {
    const auto found = allocate(model_.offers(), static_cast<double>(size - fixed_));
    return found ? std::optional(found->picks) : std::nullopt;
  }

  // The fewest bytes that are predicted to keep a mean KLD.
  std::optional<Picks> solve_kld(double kld) const {
    std::vector<std::vector<Offer>> offers = model_.offers();
    for (auto& list : offers) {
      for (Offer& o : list) std::swap(o.use, o.cost);
    }
    const auto found = allocate(offers, kld);
    return found ? std::optional(found->picks) : std::nullopt;
  }

  // What is predicted to be best where only some matrices may change.
  Picks solve_some(int64_t size, const Picks& now, const std::vector<bool>& free) const {
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

  Picks search_size(int64_t size) {
    Picks now = *solve(size);
    begin_stage("measuring Lagrange's solution", 1);
    Klds klds = measure(now);
    note_step("alone", now, klds, true);
    model_.add_mix(now, klds.mean());
    for (int round = 0; round < options_.rounds; ++round) {
      correct(now, klds, round);
      if (!improve(size, now, klds, fmt::format("round {}", round + 1))) break;
    }
    now_ = klds;
    return now;
  }

  // The choice of the hull next to a matrix's present one.
  std::optional<size_t> next(size_t m, size_t choice, bool up) const {
    std::optional<size_t> best;
    const auto& types = choices_[m].types;
    for (const size_t c : lower_hull(model_.offers()[m])) {
      if (up ? c > choice && !best : c < choice) best = c;
    }
    if (!best && up && choice + 1 < types.size()) best = choice + 1;
    return best;
  }

  // Moves every group up and down in the midst of the mix.
  void correct(const Picks& now, const Klds& klds, int round) {
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
    begin_stage(fmt::format("measuring matrices in the mix, round {}", round + 1), changes.size());
    for (CostModel::Change& c : changes) {
      const KldDifference d = difference(klds, measure(c.after));
      c.gain = d.mean;
      c.error = d.error;
    }
    model_.add_changes(changes);
  }

  // Takes a better mix of that size, if the corrected costs lead to one.
  bool improve(int64_t size, Picks& now, Klds& klds, const std::string& what) {
    std::vector<bool> free(now.size(), true);
    for (int i = 0; i <= kHalvings; ++i) {
      const Picks then = solve_some(size, now, free);
      if (then == now) return false;
      begin_stage("measuring " + what, 1);
      const Klds found = measure(then);
      const bool better = found.mean() < klds.mean();
      note_step(what, then, found, better);
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
  void exchange(Picks& now) {
    Exchanges exchanges;
    begin_stage("exchanging", static_cast<size_t>(options_.exchanges));
    int taken = 0;
    for (int i = 0; i < options_.exchanges; ++i) {
      const double room = static_cast<double>(*options_.size - bytes_of(now));
      const auto found = exchanges.next(model_.offers(), now, room);
      if (!found) break;
      const Klds klds = measure(*found);
      const KldDifference d = difference(now_, klds);
      if (d.mean <= kSure * d.error) continue;
      now = *found;
      now_ = klds;
      ++taken;
    }
    if (options_.exchanges == 0) return;
    note_step(fmt::format("exchanges, {} taken", taken), now, now_, true);
    model_.add_mix(now, now_.mean());
  }

  Picks search_kld(double kld, const Picks& largest) {
    double aim = kld;
    Picks picks = solve_kld(aim).value_or(largest);
    for (int i = 0; i < 3; ++i) {
      begin_stage("looking for the size", 1);
      const Klds klds = measure(picks);
      note_step(fmt::format("size for a KLD of {:.4g}", kld), picks, klds, true);
      if (std::fabs(klds.mean() / kld - 1) < 1 - kKldRoom) break;
      model_.add_mix(picks, klds.mean());
      picks = solve_kld(aim).value_or(largest);
    }
    picks = search_size(bytes_of(picks));
    // The chunks that decide nothing else decide the size.
    std::optional<Picks> best;
    for (int i = 0; i < kKldTries; ++i) {
      const double found = check(picks).mean();
      report_.steps.push_back({fmt::format("size for a KLD of {:.4g}, checked", kld),
                               bytes_of(picks), model_.predict(picks), found, found <= kld});
      if (found <= kld && (!best || bytes_of(picks) < bytes_of(*best))) best = picks;
      if (found <= kld && (found >= kKldRoom * kld || picks == smallest())) break;
      // Between the room and the target, seen from this ratio of measured to predicted.
      aim = model_.predict(picks) * (kld * (1 + kKldRoom) / 2) / std::max(found, 1e-300);
      Picks then = solve_kld(aim).value_or(largest);
      if (then == picks) break;
      picks = std::move(then);
    }
    if (!best) {
      const double found = check(largest).mean();
      if (found > kld) {
        throw Error({"no types reach the mean KLD",
                     {},
                     "--kld",
                     fmt::format("at least {:.4g}, that of the largest file of these types ({})",
                                 found, size_text(report_.largest)),
                     fmt::format("{:.4g}", kld),
                     "allow larger types, such as bf16"});
      }
      best = largest;
    }
    return *best;
  }

  Picks smallest() const { return Picks(choices_.size(), 0); }

  Klds check(const Picks& picks) {
    mix_.set(std::vector<Pick>(picks.begin(), picks.end()));
    return check_.measure(mix_.weights());
  }

  // Files around the chosen one.
  void walk_front(const Picks& chosen) {
    const int64_t size = bytes_of(chosen);
    std::vector<Picks> found = {chosen};
    for (int i = 0; i < options_.points; ++i) {
      // From about 0.8 to 1.3 of the bytes that can change.
      const double share =
          options_.points < 2 ? 1 : 0.8 * std::pow(1.3 / 0.8, i / (options_.points - 1.0));
      const auto limit = fixed_ + static_cast<int64_t>(share * static_cast<double>(size - fixed_));
      const auto picks = solve(limit);
      if (!picks || std::abs(bytes_of(*picks) - size) * 50 < size - fixed_) continue;
      if (std::find(found.begin(), found.end(), *picks) == found.end()) found.push_back(*picks);
    }
    int64_t n = 0;
    for (const Picks& picks : found) {
      if (job_.progress) {
        job_.progress(n++, static_cast<int64_t>(found.size()), "checking the front");
      }
      report_.front.push_back(
          {bytes_of(picks), model_.predict(picks), check(picks).figure(), picks == chosen});
    }
    std::stable_sort(report_.front.begin(), report_.front.end(),
                     [](const FrontPoint& a, const FrontPoint& b) { return a.bytes < b.bytes; });
  }

  void finish(const Picks& picks) {
    walk_front(picks);
    for (const FrontPoint& p : report_.front) {
      if (!p.chosen) continue;
      report_.bytes = p.bytes;
      report_.predicted = p.predicted;
      report_.measured = p.measured;
    }
    const double off = report_.measured.value / std::max(report_.predicted, 1e-300) - 1;
    const auto& interval = report_.measured.interval;
    const bool outside =
        !interval || report_.predicted < interval->low || report_.predicted > interval->high;
    if (outside && std::fabs(off) > kMissed) {
      report_.notes.push_back(
          fmt::format("the mean KLD is {:+.0f} % beside what was predicted: more text "
                      "(--search-tokens) makes predictions better",
                      100 * off));
    }
    fill_recipe(picks);
  }

  void fill_recipe(const Picks& picks) {
    // A file says one type of itself: that of most bytes, of the quantized ones, whose files have a
    // key more.
    std::map<DType, int64_t> bytes;
    for (size_t m = 0; m < picks.size(); ++m) {
      const TypeChoice& t = choices_[m].types[picks[m]];
      report_.recipe.tensors.emplace_back(choices_[m].plan.name, t.dtype);
      bytes[t.dtype] += t.bytes;
    }
    int64_t most = -1;
    for (const convert::GgufRecipe& r : convert::gguf_recipes()) {
      const auto found = bytes.find(r.matrix);
      if (info(r.matrix).block_elements == 1) continue;
      if (found == bytes.end() || found->second <= most) continue;
      most = found->second;
      report_.recipe.base = r.name;
    }
  }

  const Job& job_;
  const SearchOptions& options_;
  int64_t fixed_;
  SearchText text_;
  std::vector<MatrixChoices> choices_;
  CostModel model_;
  Mix mix_;
  SearchReport report_;
  std::string stage_;
  int64_t done_ = 0, total_ = 0;  // tokens of the stage
  KldMeter meter_;
  MeasureLog log_;
  KldMeter check_;
  Klds now_;  // of the present mix
};

}  // namespace

SearchReport run_search(const Job& job, const SearchOptions& options, int64_t fixed_bytes,
                        const std::string& target) {
  CHECK(options.size.has_value() != options.kld.has_value());
  if (job.chunks.empty()) {
    throw Error({"types are chosen by what they do to a text", {}, "--text", {}, {}, {}});
  }
  return Search(job, options, fixed_bytes, target).run();
}

audit::Figure measure_file(const Job& job, const SearchOptions& options, const std::string& path) {
  const SearchText text = split_text(job.chunks, options.search_tokens, options.check_tokens);
  model::LoadOptions load;
  load.pack = true;
  load.packing.pool = &job.pool;
  const model::Model model = model::load_model(path, load);
  KldMeter meter({&job.source.weights, text.check, job.memory / 4, job.stop, {}}, job.pool,
                 job.table);
  return meter.measure(model.weights).figure();
}

}  // namespace carat::quantize
