#include "audit/report_json.h"

#include <string>

#include "base/error.h"

namespace carat::audit {
namespace {

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
  j["bytes"] = file.bytes;
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
  j["tokens"] = text.tokens;
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
  Json j;
  j["limit"] = g.limit;
  j["first_differences"] = g.first_differences;
  return j;
}

void put_summary(Json& j, const Summary& s) {
  j["tokens"] = s.tokens;
  j["chunks"] = s.chunks;
  put(j, "mean_kld", s.mean_kld);
  put(j, "median_kld", s.median_kld);
  put(j, "p90_kld", s.p90_kld);
  put(j, "p99_kld", s.p99_kld);
  j["max_kld"] = s.max_kld;
  put(j, "top1_agreement", s.top1_agreement);
  put(j, "perplexity_ratio", s.perplexity_ratio);
  put(j, "reference_perplexity", s.reference_perplexity);
  put(j, "candidate_perplexity", s.candidate_perplexity);
}

Json comparison_json(const AuditReport& report, const Comparison& comparison) {
  Json j;
  j["candidate"] = report.candidates.at(comparison.candidate).path;
  j["reference"] = report.references.at(comparison.reference).path;
  put_summary(j, comparison.summary);
  if (!comparison.worst.empty()) {
    j["worst"] = Json::array();
    for (const WorstToken& w : comparison.worst) j["worst"].push_back(worst_json(w));
  }
  if (comparison.greedy) j["greedy"] = greedy_json(*comparison.greedy);
  if (!comparison.tensors.empty()) {
    j["tensors"] = Json::array();
    for (const TensorError& t : comparison.tensors) j["tensors"].push_back(tensor_json(t));
  }
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

}  // namespace

Json report_json(const AuditReport& report) {
  CHECK(!report.references.empty() && !report.candidates.empty());
  Json j;
  j["reference"] = report.references.front().path;
  j.update(provenance_json(report.provenance));
  j["texts"] = Json::array();
  for (const TextInfo& text : report.provenance.texts) j["texts"].push_back(text_json(text));
  j["noise_kld"] = report.noise_kld;
  if (!report.noise_how.empty()) j["noise_how"] = report.noise_how;
  if (!report.checks.empty()) {
    j["checks"] = Json::array();
    for (const Check& check : report.checks) {
      j["checks"].push_back(
          Json{{"name", check.name}, {"passed", check.passed}, {"detail", check.detail}});
    }
  }
  j["models"] = Json::array();
  for (const ModelInfo& m : report.references) j["models"].push_back(model_json(m, "reference"));
  for (const ModelInfo& m : report.candidates) j["models"].push_back(model_json(m, "candidate"));
  Json list = Json::array();
  for (const Comparison& c : report.comparisons) list.push_back(comparison_json(report, c));
  if (list.size() == 1) j.update(list[0]);
  j["candidates"] = std::move(list);
  return j;
}

}  // namespace carat::audit
