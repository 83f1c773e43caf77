#include "audit/report_json.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "base/error.h"

namespace carat::audit {
namespace {

// Changes when a reader of the old form would misread the new one.
constexpr const char* kAuditSchema = "carat-audit-1";

Json interval_json(const Figure& figure) {
  if (!figure.interval) return nullptr;
  return Json::array({figure.interval->low, figure.interval->high});
}

void put(Json& j, const std::string& key, const Figure& figure) {
  j[key] = figure.value;
  j[key + "_interval"] = interval_json(figure);
}

Json file_json(const FileInfo& file) {
  Json j;
  j["path"] = file.path;
  if (file.bytes > 0) j["bytes"] = file.bytes;
  if (!file.sha256.empty()) j["sha256"] = file.sha256;
  return j;
}

Json model_json(const ModelInfo& model, const char* role) {
  Json j;
  j["path"] = model.path;
  j["role"] = role;
  if (!model.what.empty()) j["what"] = model.what;
  if (!model.kv.empty()) j["kv"] = model.kv;
  if (model.bytes > 0) j["bytes"] = model.bytes;
  if (model.weights > 0) j["weights"] = model.weights;
  if (model.bits_per_weight > 0) j["bits_per_weight"] = model.bits_per_weight;
  j["files"] = Json::array();
  for (const FileInfo& file : model.files) j["files"].push_back(file_json(file));
  return j;
}

Json text_json(const TextInfo& text) {
  Json j = file_json(text.file);
  if (!text.domain.empty()) j["domain"] = text.domain;
  if (text.tokens > 0) j["tokens"] = text.tokens;
  return j;
}

Json tops_json(const std::vector<Expected>& tops) {
  Json list = Json::array();
  for (const Expected& e : tops) {
    Json j;
    j["token"] = e.token;
    j["text"] = e.text;
    j["probability"] = e.probability;
    list.push_back(std::move(j));
  }
  return list;
}

Json worst_json(const WorstToken& w) {
  Json j;
  j["kld"] = w.kld;
  j["chunk"] = w.chunk;
  j["index"] = w.index;
  j["before"] = w.before;
  j["next"] = w.next_text;
  j["after"] = w.after;
  j["next_token"] = w.next;
  j["reference_probability"] = w.reference_probability;
  j["candidate_probability"] = w.candidate_probability;
  j["reference_top"] = tops_json(w.reference_top);
  j["candidate_top"] = tops_json(w.candidate_top);
  return j;
}

Json tensor_json(const TensorError& t) {
  Json j;
  j["name"] = t.name;
  j["type"] = t.type;
  if (t.layer >= 0) j["layer"] = t.layer;
  j["weights"] = t.weights;
  j["bytes"] = t.bytes;
  j["relative_error"] = t.relative_error;
  j["max_error"] = t.max_error;
  return j;
}

Json greedy_json(const GreedyDivergence& g) {
  std::vector<double> sorted(g.first_differences.begin(), g.first_differences.end());
  std::sort(sorted.begin(), sorted.end());
  Json j;
  j["limit"] = g.limit;
  j["prompts"] = g.first_differences.size();
  j["equal"] = std::count(g.first_differences.begin(), g.first_differences.end(), g.limit);
  j["median_first_difference"] = sorted.empty() ? Json(nullptr) : Json(quantile(sorted, 0.5));
  j["first_differences"] = g.first_differences;
  return j;
}

// JSON has no infinity: a bin without an upper end has "to": null.
Json bin_json(const Bin& bin, Axis axis, const std::vector<std::string>& domains) {
  Json j;
  if (axis == Axis::kDomain) {
    const auto domain = static_cast<size_t>(bin.from);
    j["domain"] = domains.at(domain);
  } else {
    j["from"] = bin.from;
    j["to"] = std::isfinite(bin.to) ? Json(bin.to) : Json(nullptr);
  }
  j["tokens"] = bin.tokens;
  j["chunks"] = bin.chunks;
  j["flips"] = bin.flips;
  put(j, "mean_kld", bin.mean_kld);
  put(j, "top1_agreement", bin.top1_agreement);
  return j;
}

Json bins_json(const std::vector<Bin>& bins, Axis axis, const std::vector<std::string>& domains) {
  Json list = Json::array();
  for (const Bin& bin : bins) list.push_back(bin_json(bin, axis, domains));
  return list;
}

void put_figures(Json& j, const Summary& s) {
  j["tokens"] = s.tokens;
  j["chunks"] = s.chunks;
  for (const FigureKey& f : figure_keys()) put(j, f.key, s.*f.figure);
  j["max_kld"] = s.max_kld;
}

void put_breakdown(Json& j, const Summary& s, const std::vector<std::string>& domains) {
  j["kld_histogram"] = Json::array();
  for (const HistogramBin& bin : s.kld_histogram) {
    j["kld_histogram"].push_back(Json{{"from", bin.from}, {"to", bin.to}, {"tokens", bin.tokens}});
  }
  const Breakdown& b = s.breakdown;
  j["by_margin"] = bins_json(b.by_margin, Axis::kMargin, domains);
  j["by_entropy"] = bins_json(b.by_entropy, Axis::kEntropy, domains);
  j["by_position"] = bins_json(b.by_position, Axis::kPosition, domains);
  j["by_domain"] = domains.empty() ? Json::array() : bins_json(b.by_domain, Axis::kDomain, domains);
}

Json comparison_json(const AuditReport& report, const Comparison& comparison) {
  Json j;
  j["candidate"] = report.candidates.at(comparison.candidate).path;
  j["reference"] = report.references.at(comparison.reference).path;
  put_figures(j, comparison.summary);
  put_breakdown(j, comparison.summary, report.domains);
  j["worst"] = Json::array();
  for (const WorstToken& w : comparison.worst) j["worst"].push_back(worst_json(w));
  if (comparison.greedy) j["greedy"] = greedy_json(*comparison.greedy);
  if (!comparison.tensors.empty()) {
    j["tensors"] = Json::array();
    for (const TensorError& t : comparison.tensors) j["tensors"].push_back(tensor_json(t));
  }
  return j;
}

Json difference_json(const AuditReport& report, const Difference& d) {
  Json j;
  j["reference"] = report.references.at(d.reference).path;
  j["baseline"] = report.candidates.at(d.baseline).path;
  j["candidate"] = report.candidates.at(d.candidate).path;
  put(j, "mean_kld_difference", d.mean_kld);
  if (d.kld_ratio) put(j, "mean_kld_ratio", *d.kld_ratio);
  put(j, "top1_agreement_difference", d.top1_agreement);
  put(j, "perplexity_ratio", d.perplexity_ratio);
  const std::optional<bool> apart = d.apart();
  j["apart"] = apart ? Json(*apart) : Json(nullptr);
  return j;
}

Json provenance_json(const Provenance& p) {
  Json j;
  j["format"] = p.format;
  j["context"] = p.context;
  j["min_context"] = p.min_context;
  if (p.max_positions > 0) j["max_positions"] = p.max_positions;
  if (p.precision > 0) j["precision"] = p.precision;
  if (!p.kv.empty()) j["kv"] = p.kv;
  j["direction"] = "KL(reference || candidate)";
  j["log_base"] = "e";
  j["interval"] = "95 %, percentile bootstrap over chunks";
  j["seed"] = p.seed;
  j["resamples"] = p.resamples;
  j["version"] = p.version;
  j["commit"] = p.commit;
  j["isa"] = p.isa;
  j["threads"] = p.threads;
  if (!p.command_line.empty()) j["command_line"] = p.command_line;
  return j;
}

void put_single(Json& j, const AuditReport& report) {
  const Comparison& single = report.comparisons.front();
  j["candidate"] = report.candidates.at(single.candidate).path;
  put_figures(j, single.summary);
}

}  // namespace

Json report_json(const AuditReport& report) {
  CHECK(!report.references.empty() && !report.candidates.empty());
  Json j;
  j["schema"] = kAuditSchema;
  j["reference"] = report.references.front().path;
  j.update(provenance_json(report.provenance));
  j["texts"] = Json::array();
  for (const TextInfo& text : report.provenance.texts) j["texts"].push_back(text_json(text));
  j["noise_kld"] = report.noise_how.empty() ? Json(nullptr) : Json(report.noise_kld);
  j["noise_how"] = report.noise_how;
  j["checks"] = Json::array();
  for (const Check& check : report.checks) {
    j["checks"].push_back(
        Json{{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
  }
  j["models"] = Json::array();
  for (const ModelInfo& m : report.references) j["models"].push_back(model_json(m, "reference"));
  for (const ModelInfo& m : report.candidates) j["models"].push_back(model_json(m, "candidate"));
  if (report.comparisons.size() == 1) put_single(j, report);
  j["candidates"] = Json::array();
  for (const Comparison& c : report.comparisons) {
    j["candidates"].push_back(comparison_json(report, c));
  }
  j["differences"] = Json::array();
  for (const Difference& d : report.differences) {
    j["differences"].push_back(difference_json(report, d));
  }
  return j;
}

}  // namespace carat::audit
