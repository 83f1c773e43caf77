#include "audit/page/document.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "audit/page/html.h"
#include "audit/page/sections.h"
#include "base/error.h"

namespace carat::audit::page {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr size_t kMostElements = 1 << 20;  // of a list

// Sizes that can be drawn; below them is nothing that floats could tell from 0.
double drawable(double v, const char* key) {
  if (std::isfinite(v) && std::abs(v) > 1e30)
    throw Error({"too large a number", {}, key, {}, {}, {}});
  return std::abs(v) < 1e-30 ? 0 : v;
}

// Absent: not-a-number. JSON has no infinity: a figure that is there but null is infinite.
double number(const Json& j, const char* key) {
  const auto found = j.find(key);
  if (found == j.end()) return kNone;
  if (found->is_null()) return kInfinity;
  if (!found->is_number()) throw Error({"not a number", {}, key, {}, {}, {}});
  return drawable(found->get<double>(), key);
}

Figure figure(const Json& j, const char* key) {
  Figure f{.value = number(j, key), .interval = std::nullopt};
  const Json* interval = find(j, (std::string(key) + "_interval").c_str());
  if (interval == nullptr) return f;
  if (!interval->is_array() || interval->size() != 2) {
    throw Error({"not an interval", {}, std::string(key) + "_interval", "[low, high]", {}, {}});
  }
  const auto end = [&](size_t i) {
    const Json& x = (*interval)[i];
    if (x.is_null()) return kInfinity;
    if (!x.is_number()) throw Error({"not an interval", {}, key, "[low, high]", {}, {}});
    return drawable(x.get<double>(), key);
  };
  f.interval = Interval{end(0), end(1)};
  if (std::isnan(f.interval->low) || std::isnan(f.interval->high)) f.interval.reset();
  return f;
}

int64_t count(const Json& j, const char* key) { return get_int(j, key, 0, kMost, 0); }

std::string text(const Json& j, const char* key) { return get_string(j, key, std::string()); }

// Every element of an optional list, read by `one`.
template <class F>
auto list(const Json& j, const char* key, F one) {
  std::vector<decltype(one(j))> out;
  const Json* const found = find(j, key);
  if (found == nullptr) return out;
  if (!found->is_array()) throw Error({"not a list", {}, key, {}, {}, {}});
  if (found->size() > kMostElements) {
    throw Error({"the list is too long to show",
                 {},
                 key,
                 std::to_string(kMostElements),
                 std::to_string(found->size()),
                 {}});
  }
  for (size_t i = 0; i < found->size(); ++i) {
    try {
      if (!(*found)[i].is_object()) throw Error("not an object");
      out.push_back(one((*found)[i]));
    } catch (const Error& error) {
      const std::string& inner = error.info().place;
      ErrorInfo info = error.info();
      info.place = fmt::format("{}[{}]{}{}", key, i, inner.empty() ? "" : ".", inner);
      throw Error(info);
    }
  }
  return out;
}

FileText read_file(const Json& j) {
  return {.path = text(j, "path"), .sha256 = text(j, "sha256"), .bytes = count(j, "bytes")};
}

ModelText read_model(const Json& j) {
  ModelText m;
  m.path = get_string(j, "path");
  m.what = text(j, "what");
  m.kv = text(j, "kv");
  m.is_reference = text(j, "role") == "reference";
  m.bytes = count(j, "bytes");
  m.weights = count(j, "weights");
  m.bits_per_weight = get_number(j, "bits_per_weight", 0, 1e9, 0);
  m.files = list(j, "files", read_file);
  if (m.bytes == 0) {
    for (const FileText& f : m.files) m.bytes += std::min(f.bytes, kMost - m.bytes);
  }
  return m;
}

std::string edge(double x) { return fmt::format("{:g}", x); }

BinText read_bin(const Json& j) {
  BinText bin;
  bin.name = text(j, "domain");
  if (bin.name.empty()) {
    const double from = number(j, "from"), to = number(j, "to");
    if (std::isnan(from) || !std::isfinite(from)) throw Error({"missing", {}, "from", {}, {}, {}});
    if (from == 0 && std::isfinite(to)) {
      bin.name = "< " + edge(to);
    } else {
      bin.name = std::isfinite(to) ? edge(from) + "\u2013" + edge(to) : "\u2265 " + edge(from);
    }
  }
  bin.tokens = count(j, "tokens");
  bin.flips = count(j, "flips");
  bin.mean_kld = figure(j, "mean_kld");
  bin.top1_agreement = figure(j, "top1_agreement");
  return bin;
}

HistogramBar read_bar(const Json& j) {
  HistogramBar bar{.from = number(j, "from"), .to = number(j, "to"), .tokens = count(j, "tokens")};
  if (!(bar.from >= 0) || !(bar.to > bar.from) || !std::isfinite(bar.from)) {
    throw Error("not a bin of a histogram");
  }
  return bar;
}

Choice read_choice(const Json& j) {
  return {.text = text(j, "text"),
          .token = get_int(j, "token", -1, kMost, -1),
          .probability = get_number(j, "probability", 0, 1.001, 0)};
}

WorstText read_worst(const Json& j) {
  WorstText w;
  w.kld = number(j, "kld");
  w.chunk = count(j, "chunk");
  w.index = count(j, "index");
  w.before = text(j, "before");
  w.next = text(j, "next");
  w.after = text(j, "after");
  w.reference_probability = get_number(j, "reference_probability", 0, 1.001, kNone);
  w.candidate_probability = get_number(j, "candidate_probability", 0, 1.001, kNone);
  w.reference_top = list(j, "reference_top", read_choice);
  w.candidate_top = list(j, "candidate_top", read_choice);
  return w;
}

TensorText read_tensor(const Json& j) {
  TensorText t;
  t.name = get_string(j, "name");
  t.type = text(j, "type");
  t.layer = get_int(j, "layer", -1, 100000, -1);
  t.weights = count(j, "weights");
  t.bytes = count(j, "bytes");
  t.relative_error = number(j, "relative_error");
  t.kind = tensor_kind(t.name, t.layer);
  return t;
}

std::optional<GreedyText> read_greedy(const Json& j) {
  const Json* const g = find(j, "greedy");
  if (g == nullptr) return std::nullopt;
  GreedyText out{.limit = get_int(*g, "limit", 1, 1 << 20), .first_differences = {}};
  const Json& values = get(*g, "first_differences");
  if (!values.is_array()) throw Error({"not a list", {}, "greedy.first_differences", {}, {}, {}});
  for (const Json& v : values) {
    if (!v.is_number_integer()) {
      throw Error({"not whole numbers", {}, "greedy.first_differences", {}, {}, {}});
    }
    out.first_differences.push_back(std::clamp(v.get<int64_t>(), int64_t{0}, out.limit));
  }
  if (out.first_differences.empty()) return std::nullopt;
  return out;
}

std::vector<Axis> read_axes(const Json& j) {
  std::vector<Axis> axes = {
      {"How sure the reference was", "lead of its first choice over its second", true,
       list(j, "by_margin", read_bin)},
      {"How open the text was", "entropy of what it expected, nats", true,
       list(j, "by_entropy", read_bin)},
      {"Place in the text", "tokens read before", true, list(j, "by_position", read_bin)},
      {"Kind of text", "domain", false, list(j, "by_domain", read_bin)}};
  CHECK(axes.size() == kAxisCount);
  return axes;
}

Row read_row(const Json& j, std::span<const ModelText> models) {
  Row row;
  const std::string path = get_string(j, "candidate");
  // Candidates follow references: one that is both is taken from where it is a candidate.
  const auto found = std::find_if(models.rbegin(), models.rend(),
                                  [&](const ModelText& m) { return m.path == path; });
  if (found != models.rend()) row.model = *found;
  row.model.path = path;
  row.tokens = count(j, "tokens");
  row.chunks = count(j, "chunks");
  row.mean_kld = figure(j, "mean_kld");
  if (std::isnan(row.mean_kld.value)) {
    throw Error({"the audit has no mean KLD", {}, "mean_kld", {}, {}, {}});
  }
  row.median_kld = figure(j, "median_kld");
  row.p90_kld = figure(j, "p90_kld");
  row.p99_kld = figure(j, "p99_kld");
  row.p999_kld = figure(j, "p999_kld");
  row.max_kld = number(j, "max_kld");
  row.top1_agreement = figure(j, "top1_agreement");
  row.top5_agreement = figure(j, "top5_agreement");
  row.perplexity_ratio = figure(j, "perplexity_ratio");
  row.rms_delta_p = figure(j, "rms_delta_p");
  row.mean_delta_p = figure(j, "mean_delta_p");
  row.reference_perplexity = figure(j, "reference_perplexity");
  row.candidate_perplexity = figure(j, "candidate_perplexity");
  row.histogram = list(j, "kld_histogram", read_bar);
  row.axes = read_axes(j);
  row.worst = list(j, "worst", read_worst);
  row.greedy = read_greedy(j);
  row.tensors = list(j, "tensors", read_tensor);
  return row;
}

PairText read_pair(const Json& j) {
  PairText pair;
  pair.reference = get_string(j, "reference");
  pair.baseline = get_string(j, "baseline");
  pair.candidate = get_string(j, "candidate");
  pair.mean_kld = figure(j, "mean_kld_difference");
  pair.kld_ratio = figure(j, "mean_kld_ratio");
  pair.top1_agreement = figure(j, "top1_agreement_difference");
  pair.perplexity_ratio = figure(j, "perplexity_ratio");
  return pair;
}

TextText read_text(const Json& j) {
  return {.file = read_file(j), .domain = text(j, "domain"), .tokens = count(j, "tokens")};
}

CheckText read_check(const Json& j) {
  return {
      .name = text(j, "name"), .detail = text(j, "detail"), .passed = get_bool(j, "passed", false)};
}

Run read_run(const Json& j) {
  Run run;
  run.version = text(j, "version");
  run.commit = text(j, "commit");
  run.isa = text(j, "isa");
  run.command_line = text(j, "command_line");
  run.format = text(j, "format");
  run.kv = text(j, "kv");
  run.interval = text(j, "interval");
  run.threads = count(j, "threads");
  run.context = count(j, "context");
  run.min_context = count(j, "min_context");
  run.max_positions = count(j, "max_positions");
  run.resamples = count(j, "resamples");
  run.precision = get_number(j, "precision", 0, 1, 0);
  if (const Json* seed = find(j, "seed"); seed != nullptr && seed->is_number_integer()) {
    run.seed = seed->dump();
  }
  if (const double noise = number(j, "noise_kld"); !std::isnan(noise)) run.noise_kld = noise;
  run.noise_how = text(j, "noise_how");
  run.texts = list(j, "texts", read_text);
  run.checks = list(j, "checks", read_check);
  run.models = list(j, "models", read_model);
  run.pairs = list(j, "differences", read_pair);
  return run;
}

void check_is_audit(const Json& j) {
  const auto none = [](const char* what) {
    return Error({what, {}, {}, "what carat audit --json prints", {}, {}});
  };
  if (!j.is_object() || find(j, "candidates") == nullptr || find(j, "reference") == nullptr) {
    throw none("this is no audit");
  }
  const std::string schema = text(j, "schema");
  if (!schema.empty() && schema != "carat-audit-1") {
    throw Error({"an audit of a form that this carat does not know",
                 {},
                 "schema",
                 "carat-audit-1",
                 schema,
                 "a newer carat may show it"});
  }
}

}  // namespace

Document read_document(std::span<const PageSource> sources) {
  Document document;
  std::vector<Measured> measured;
  for (const PageSource& source : sources) {
    try {
      check_is_audit(source.report);
      Run run = read_run(source.report);
      run.source = source.name;
      const std::string reference = get_string(source.report, "reference");
      struct Pair {
        std::string reference;
        Row row;
      };
      auto pairs = list(source.report, "candidates", [&](const Json& j) {
        return Pair{get_string(j, "reference", reference), read_row(j, run.models)};
      });
      for (Pair& pair : pairs) {
        Measured m{.reference = {}, .row = std::move(pair.row)};
        m.row.places.push_back({.source = document.runs.size(),
                                .reference = pair.reference,
                                .candidate = m.row.model.path});
        const auto found = std::find_if(run.models.begin(), run.models.end(),
                                        [&](auto& model) { return model.path == pair.reference; });
        if (found != run.models.end()) m.reference = *found;
        m.reference.path = pair.reference;
        measured.push_back(std::move(m));
      }
      document.runs.push_back(std::move(run));
    } catch (const Error& error) {
      throw error.with_file(source.name);
    }
  }
  if (measured.empty()) {
    const std::string name = sources.empty() ? std::string() : sources.front().name;
    throw Error("there is no candidate to show").with_file(name);
  }
  document.sections = make_sections(std::move(measured), document.runs);
  return document;
}

}  // namespace carat::audit::page
