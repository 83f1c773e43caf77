#include "quantize/search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "audit/audit.h"
#include "base/error.h"
#include "quantize/choices.h"
#include "quantize/kld_meter.h"
#include "quantize/measure_log.h"
#include "quantize/mix.h"
#include "quantize/search_key.h"
#include "quantize/search_steps.h"
#include "quantize/search_text.h"

namespace carat::quantize {
namespace {

// A prediction that is further off, and outside of the interval, is noted; beside one that is as
// good as nothing there is no share.
constexpr double kMissed = 0.15, kNothing = 1e-9;

std::string size_text(int64_t bytes) { return fmt::format("{} bytes", bytes); }

int64_t sum(const std::vector<int64_t>& counts) {
  int64_t all = 0;
  for (const int64_t n : counts) all += n;
  return all;
}

SearchText parts_of(const Job& job, const SearchOptions& options) {
  if (job.chunks.empty()) {
    throw Error({"types are chosen by what they do to a text", {}, "--text", {}, {}, {}});
  }
  return split_text(job.chunks, options.search_tokens, options.check_tokens);
}

}  // namespace

class TypeSearch::Impl {
 public:
  Impl(const Job& job, const SearchOptions& options, int64_t fixed, const std::string& beside)
      : job_(job),
        options_(options),
        fixed_(fixed),
        beside_(beside),
        text_(parts_of(job, options)),
        types_(options.types.empty() ? writable_types() : options.types) {
    CHECK(options.size.has_value() != options.kld.has_value());
    check_size(fixed_ + smallest_bytes(job, types_));
    const std::array counts = {KldMeter::counts(text_.search), KldMeter::counts(text_.check)};
    // The key reads some of all tensors.
    const std::vector<LogKey> key =
        options.state.empty() ? std::vector<LogKey>() : search_key(job, text_, types_);
    log_ = std::make_unique<MeasureLog>(options.state, key, counts);
    report_.options = options;
    report_.search_positions = sum(counts[0]);
    report_.check_positions = sum(counts[1]);
    report_.check_chunks = static_cast<int64_t>(text_.check.size());
    for (const auto& chunk : text_.search) tokens_ += static_cast<int64_t>(chunk.size());
  }

  SearchReport run() {
    choices_ = list_choices(job_, types_, {.log = log_.get()});
    steps_.emplace(choices_, options_.groups, fixed_,
                   MixMeter{[this](std::span<const Pick> picks) {
                              return measure(MeasureLog::Chunks::kSearch, picks);
                            },
                            [this](const Picks& picks) { return check(picks).mean(); },
                            [this](const std::string& what, size_t n) { begin(what, n); }});
    mix_.emplace(job_, choices_, beside_, job_.memory / 4);
    report_.smallest = steps_->bytes_of(steps_->smallest());
    report_.largest = steps_->bytes_of(steps_->largest());
    check_size(report_.smallest);
    finish(choose());
    return std::move(report_);
  }

 private:
  void check_size(int64_t smallest) const {
    if (!options_.size || *options_.size >= smallest) return;
    throw Error({"no types make the file so small",
                 {},
                 "--size",
                 "at least " + size_text(smallest),
                 size_text(*options_.size),
                 "allow smaller types, or take a smaller model"});
  }

  Picks choose() {
    if (options_.size && *options_.size >= report_.largest) {
      if (*options_.size > report_.largest) {
        report_.notes.push_back(fmt::format(
            "every matrix has the largest of its types that does any good: the file needs no more "
            "than {} bytes",
            report_.largest));
      }
      return steps_->take_largest();
    }
    steps_->measure_alone();
    return options_.size ? steps_->for_size(*options_.size, options_.rounds, options_.exchanges)
                         : steps_->for_kld(*options_.kld, options_.rounds);
  }

  void begin(const std::string& what, size_t passes) {
    stage_ = what;
    done_ = 0;
    total_ = static_cast<int64_t>(passes) * tokens_;
  }

  void advance(int64_t tokens) {
    done_ += tokens;
    if (job_.progress && !stage_.empty()) {
      job_.progress(std::min(done_, total_), std::max<int64_t>(total_, 1), stage_);
    }
  }

  // The reference is read when the first measurement is not known already.
  Klds measure(MeasureLog::Chunks where, std::span<const Pick> picks) {
    const bool checks = where == MeasureLog::Chunks::kCheck;
    if (const Klds* known = log_->find(where, picks)) {
      if (!checks) advance(tokens_);
      return *known;
    }
    std::optional<KldMeter>& meter = checks ? check_meter_ : search_meter_;
    if (!meter) {
      const auto progress = [this](int64_t n) {
        if (counts_) advance(n);
      };
      counts_ = false;
      meter.emplace(KldMeter::Call{&job_.source.weights, checks ? text_.check : text_.search,
                                   job_.memory / 4, job_.stop, progress},
                    job_.pool, job_.table);
    }
    counts_ = !checks;
    mix_->set(picks);
    Klds klds = meter->measure(mix_->weights());
    log_->add(where, picks, klds);
    return klds;
  }

  Klds check(const Picks& picks) {
    return measure(MeasureLog::Chunks::kCheck, std::vector<Pick>(picks.begin(), picks.end()));
  }

  // The chosen file, and some around it.
  std::vector<Picks> around(const Picks& chosen) const {
    const int64_t size = steps_->bytes_of(chosen);
    std::vector<Picks> found = {chosen};
    for (int i = 0; i < options_.points; ++i) {
      // From about 0.8 to 1.3 of the bytes that can change.
      const double share =
          options_.points < 2 ? 1 : 0.8 * std::pow(1.3 / 0.8, i / (options_.points - 1.0));
      const auto limit = fixed_ + static_cast<int64_t>(share * static_cast<double>(size - fixed_));
      const auto picks = steps_->solve(limit);
      if (!picks || std::abs(steps_->bytes_of(*picks) - size) * 50 < size - fixed_) continue;
      if (std::find(found.begin(), found.end(), *picks) == found.end()) found.push_back(*picks);
    }
    return found;
  }

  void finish(const Picks& chosen) {
    const bool largest = options_.size && *options_.size >= report_.largest;
    // Nothing is known of smaller files where the largest one was asked for.
    const std::vector<Picks> found = largest ? std::vector<Picks>{chosen} : around(chosen);
    int64_t n = 0;
    for (const Picks& picks : found) {
      if (job_.progress) {
        job_.progress(n++, static_cast<int64_t>(found.size()), "checking the front");
      }
      report_.front.push_back({steps_->bytes_of(picks), steps_->predict(picks),
                               check(picks).figure(), picks == chosen});
    }
    report_.bytes = report_.front[0].bytes;
    report_.predicted = report_.front[0].predicted;
    report_.measured = report_.front[0].measured;
    std::stable_sort(report_.front.begin(), report_.front.end(),
                     [](const FrontPoint& a, const FrontPoint& b) { return a.bytes < b.bytes; });
    report_.steps = steps_->steps();
    report_.passes = steps_->passes();
    add_notes();
    fill_recipe(chosen);
  }

  void add_notes() {
    std::vector<std::string>& notes = report_.notes;
    if (report_.check_chunks < audit::kFewestChunks) {
      notes.push_back(
          fmt::format("too few chunks ({}) for intervals to trust", report_.check_chunks));
    }
    if (options_.kld) {
      notes.emplace_back(
          "the same chunks chose the size, so that the figure of the chosen file is a little too "
          "good: carat audit measures it on another text");
    }
    const double predicted = report_.predicted, value = report_.measured.value;
    const auto& interval = report_.measured.interval;
    if (interval && predicted >= interval->low && predicted <= interval->high) return;
    if (std::fabs(value - predicted) <= std::max(kMissed * predicted, kNothing)) return;
    const double share = predicted > kNothing ? value / predicted - 1 : 0;
    notes.push_back(
        fmt::format("the mean KLD is {}: more text (--search-tokens) makes predictions better",
                    predicted > kNothing && share < 10
                        ? fmt::format("{:+.0f} % beside what was predicted", 100 * share)
                        : fmt::format("{:.3g}, where {:.3g} was predicted", value, predicted)));
  }

  void fill_recipe(const Picks& picks) {
    // Named after the type of most bytes.
    std::map<DType, int64_t> bytes;
    for (size_t m = 0; m < picks.size(); ++m) {
      const TypeChoice& t = choices_[m].types[picks[m]];
      report_.recipe.tensors.emplace_back(choices_[m].plan.name, t.dtype);
      bytes[t.dtype] += t.bytes;
    }
    int64_t most = -1;
    for (const convert::GgufRecipe& r : convert::gguf_recipes()) {
      const auto found = bytes.find(r.matrix);
      if (found == bytes.end() || found->second <= most) continue;
      most = found->second;
      report_.recipe.base = r.name;
    }
  }

  const Job& job_;
  const SearchOptions& options_;
  int64_t fixed_;
  std::string beside_;
  SearchText text_;
  std::vector<DType> types_;
  std::unique_ptr<MeasureLog> log_;
  std::vector<MatrixChoices> choices_;
  std::optional<SearchSteps> steps_;
  std::optional<Mix> mix_;
  std::optional<KldMeter> search_meter_, check_meter_;
  SearchReport report_;
  std::string stage_;
  int64_t tokens_ = 0;            // of the chunks that decide
  int64_t done_ = 0, total_ = 0;  // of the stage
  bool counts_ = false;           // what is read now, to it
};

TypeSearch::TypeSearch(const Job& job, const SearchOptions& options, int64_t fixed_bytes,
                       const std::string& beside)
    : impl_(std::make_unique<Impl>(job, options, fixed_bytes, beside)) {}

TypeSearch::~TypeSearch() = default;

SearchReport TypeSearch::run() { return impl_->run(); }

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
