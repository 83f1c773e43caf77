// All that an audit found, and from what: the one source of the terminal's tables, the JSON
// (audit/report_json.h, docs/audit-schema.json) and the page.
//
// Plain data. Who runs an audit fills it in; a member that is empty was not asked for or not
// computed, and is left out of what is shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "audit/differences.h"
#include "audit/statistics.h"
#include "audit/worst_tokens.h"

namespace carat::audit {

struct FileInfo {
  std::string path = {};
  int64_t bytes = 0;        // 0: unknown, of what a stored reference was made from
  std::string sha256 = {};  // 64 hexadecimal digits; empty: not computed
};

// A reference or a candidate.
struct ModelInfo {
  std::string path = {};  // as the command line names it
  std::string what = {};  // for people: "original bf16", "QAT bf16", "Q4_0"; may be empty
  std::vector<FileInfo> files =
      {};                      // its weights, and its tokenizer where that is a file of its own
  int64_t bytes = 0;           // of all files
  int64_t weights = 0;         // parameters of the model; 0: unknown
  double bits_per_weight = 0;  // of the weights' files, measured; 0: unknown
  std::string kv = {};         // type of the keys and values it was run with
};

struct TextInfo {
  FileInfo file;
  std::string domain = {};  // what Summary's domains call it; empty: none
  int64_t tokens = 0;       // of the whole file, tokenized; 0: unknown
};

// What is needed to run the audit again.
struct Provenance {
  std::string version = {}, commit = {};
  std::string isa = {};
  int64_t threads = 0;
  std::string command_line = {};
  std::vector<TextInfo> texts = {};
  std::string format = "raw";  // of the text: "raw" or "chat", put into the model's template
  std::string kv = {};         // of every model; empty: see ModelInfo::kv
  int64_t context = 0;         // tokens a chunk, <bos> included
  int64_t min_context = 0;     // the scoring window: tokens before the first compared one
  int64_t max_positions = 0;   // asked for; 0: the whole text
  double precision = 0;        // asked for: half an interval's width by the mean KLD; 0: not
  uint64_t seed = 0;           // of the bootstrap
  int64_t resamples = 0;
};

// Something that had to be true, such as that calibration and test text share nothing.
struct Check {
  std::string name = {};  // "disjoint text"
  bool passed = false;
  std::string detail = {};
};

// Where greedy answers of the candidate leave those of the reference.
struct GreedyDivergence {
  int64_t limit = 0;                            // tokens generated for a prompt
  std::vector<int64_t> first_differences = {};  // of each prompt: equal tokens before; `limit`: all
};

// One tensor of a candidate beside the reference's.
struct TensorError {
  std::string name = {};
  std::string type = {};  // its type in the candidate: "Q4_0"
  int64_t layer = -1;     // -1: of no layer
  int64_t weights = 0;
  int64_t bytes = 0;          // in the candidate
  double relative_error = 0;  // root mean square of the difference by that of the weights
  double max_error = 0;       // largest difference by the root mean square of the weights
};

// One candidate against one reference.
struct Comparison {
  size_t reference = 0;  // index into AuditReport::references
  size_t candidate = 0;  // index into AuditReport::candidates
  Summary summary = {};
  std::vector<WorstToken> worst = {};  // largest divergence first
  std::optional<GreedyDivergence> greedy = {};
  std::vector<TensorError> tensors = {};
};

struct AuditReport {
  Provenance provenance;
  std::vector<ModelInfo> references = {};  // one or two
  std::vector<ModelInfo> candidates = {};
  std::vector<std::string> domains = {};  // names, by the index in Summary; empty: one, unnamed
  // One for every candidate and reference: all candidates against the first reference in order,
  // then against the second.
  std::vector<Comparison> comparisons = {};
  // Every pair of candidates, against the first reference, then against the second.
  std::vector<Difference> differences = {};
  // Largest divergence of the (first) reference against itself, computed in another way: what a
  // figure below it would mean nothing against. Not measured if `noise_how` is empty.
  double noise_kld = 0;
  std::string noise_how = {};  // in what way: "in steps of another size"
  std::vector<Check> checks = {};
};

}  // namespace carat::audit
