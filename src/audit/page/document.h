// What the page shows, read from the JSON of audits and checked.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/figure.h"
#include "audit/page/page.h"

namespace carat::audit::page {

struct FileText {
  std::string path, sha256;
  int64_t bytes = 0;
};

struct ModelText {
  std::string path, what, kv;  // as in audit/report.h
  bool is_reference = false;
  std::string name;   // short, different from those of other models on the page
  std::string label;  // for figures: the name without what the section's candidates share
  int64_t bytes = 0, weights = 0;
  double bits_per_weight = 0;  // 0: unknown
  std::vector<FileText> files;
};

struct BinText {
  std::string name;  // "0.1 - 0.5", "\u2265 64", a domain
  int64_t tokens = 0, flips = 0;
  Figure mean_kld, top1_agreement;
};

// One way to sort positions.
struct Axis {
  std::string title, about;
  bool ordered = true;  // its bins are neighbours; domains are not
  std::vector<BinText> bins;
};
inline constexpr size_t kAxisCount = 4;  // margin, entropy, position, domain

struct HistogramBar {
  double from = 0, to = 0;  // nats; from is 0 in the first
  int64_t tokens = 0;
};

struct Choice {
  std::string text;
  int64_t token = 0;
  double probability = 0;
};

struct WorstText {
  double kld = 0;
  int64_t chunk = 0, index = 0;
  std::string before, next, after;
  double reference_probability = 0, candidate_probability = 0;
  std::vector<Choice> reference_top, candidate_top;
};

struct GreedyText {
  int64_t limit = 0;
  std::vector<int64_t> first_differences;
};

struct TensorText {
  std::string name, type;
  std::string kind;    // its name without the layer: "attn_q"
  int64_t layer = -1;  // -1: of no layer
  int64_t weights = 0, bytes = 0;
  double relative_error = 0;
};

// Two candidates over the same tokens: the candidate's figures less the baseline's, or by them.
// Paths are those of one document.
struct PairText {
  std::string reference, baseline, candidate;
  Figure mean_kld, kld_ratio, top1_agreement, perplexity_ratio;
};

// Where a comparison comes from: its document, and the paths there.
struct Place {
  size_t source = 0;  // index into Document::runs
  std::string reference, candidate;
};

// A candidate against the reference of its section. Figures that the document does not have are
// not-a-number.
struct Row {
  ModelText model;
  std::vector<Place> places;  // one, and those of equal rows that were left out
  int64_t tokens = 0, chunks = 0;
  Figure mean_kld, median_kld, p90_kld, p99_kld, p999_kld;
  double max_kld = 0;
  Figure top1_agreement, top5_agreement, perplexity_ratio, rms_delta_p, mean_delta_p;
  Figure reference_perplexity, candidate_perplexity;
  std::vector<HistogramBar> histogram;
  std::vector<Axis> axes;  // kAxisCount of them, those that are missing without bins
  std::vector<WorstText> worst;
  std::optional<GreedyText> greedy;
  std::vector<TensorText> tensors;
  bool on_front = false;  // no other candidate of the section is as small and closer
};

// Candidates that were measured alike, closest first.
struct Section {
  ModelText reference;
  size_t source = 0;
  std::vector<Row> rows;
};

struct CheckText {
  std::string name, detail;
  bool passed = false;
};

struct TextText {
  FileText file;
  std::string domain;
  int64_t tokens = 0;
};

// One document: how its figures were measured.
struct Run {
  std::string source;  // name of the document; may be empty
  std::string version, commit, isa, command_line, format, kv, interval, noise_how;
  int64_t threads = 0, context = 0, min_context = 0, max_positions = 0, resamples = 0;
  double precision = 0;
  std::string seed;
  std::optional<double> noise_kld;
  std::vector<TextText> texts;
  std::vector<CheckText> checks;
  std::vector<ModelText> models;  // all of them
  std::vector<PairText> pairs;
};

struct Document {
  std::vector<Run> runs;
  std::vector<Section> sections;
};

// Throws Error naming the document and the place in it.
[[nodiscard]] Document read_document(std::span<const PageSource> sources);

}  // namespace carat::audit::page
