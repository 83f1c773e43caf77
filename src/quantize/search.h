// Types of single tensors for a size of the file, or for a mean KLD: those that lose least by what
// was measured on a text.
//
// 1. Every matrix alone, in a few types, on some chunks of the text: what it costs (cost_model.h).
// 2. Lagrange's solution on those costs (lagrange.h).
// 3. Rounds: in the midst of the present mix, every matrix one type up and one down; costs are
//    corrected, and a new solution is taken if it measures better.
// 4. Exchanges of two matrices, taken if they measure better.
// Other chunks check whether predictions held: every figure that is reported comes from them. No
// type was chosen by what it does there, but for the size of a file that a KLD was asked of. What
// importance matrices and codes were made of may be the whole text, these chunks included.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "audit/figure.h"
#include "base/json.h"
#include "convert/recipe.h"
#include "quantize/job.h"

namespace carat::quantize {

struct SearchOptions {
  // One of the two.
  std::optional<int64_t> size;   // bytes of the file, at most
  std::optional<double> kld;     // mean on the chunks that check, at most
  std::vector<DType> types;      // that may be used; empty: all that carat writes
  int64_t search_tokens = 8192;  // read for each decision
  int64_t check_tokens = 16384;  // at most, and of at most two fifths of the chunks, or two
  int rounds = 1;
  int exchanges = 10;   // measured at most
  size_t groups = 120;  // of matrices that are measured together, at most
  // File that keeps what is measured, for a search that goes on and for others of the same model,
  // text, parts of it, types, importance and instruction set; empty: none.
  std::string state;
  int points = 7;  // of the front
};

struct FrontPoint {
  int64_t bytes = 0;     // of the file
  double predicted = 0;  // mean KLD
  audit::Figure measured;
  bool chosen = false;
};

// What a step of the search led to, on the chunks that decide.
struct SearchStep {
  std::string what;
  int64_t bytes = 0;
  double predicted = 0, measured = 0;  // mean KLD
  bool taken = true;
};

struct SearchReport {
  SearchOptions options;
  convert::Recipe recipe;             // names every matrix
  int64_t smallest = 0, largest = 0;  // files that the types allow, bytes
  int64_t bytes = 0;                  // of the file
  double predicted = 0;               // mean KLD, before it was measured on the chunks that check
  audit::Figure measured;
  // Of the file itself, once it is there: of the codes of its method. Nothing if that was not
  // measured.
  std::optional<audit::Figure> written;
  int64_t search_positions = 0, check_positions = 0, check_chunks = 0;
  int64_t passes = 0;  // over the chunks that decide
  std::vector<SearchStep> steps;
  std::vector<FrontPoint> front;  // by size
  std::vector<std::string> notes;
};

// A search that is about to be made.
class TypeSearch {
 public:
  // What can be known to fail fails here, before the model reads anything. The job's matrices come
  // with any types, its imatrix is null where one will be made of the text. `fixed_bytes`: of the
  // file, without the matrices' data. `beside`: a path in a folder for what does not fit the
  // memory. `job` and `options` outlive it. Throws Error: no text, too little of it, a size that no
  // types make, or a state that cannot be used.
  TypeSearch(const Job& job, const SearchOptions& options, int64_t fixed_bytes,
             const std::string& beside);
  ~TypeSearch();

  // Results do not depend on the number of threads. A size above the largest file gives that one.
  // Throws Error: a KLD that no types reach. REQUIRES: called once; the job has its imatrix.
  SearchReport run();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The mean KLD of a file on the chunks of the job's text that check.
audit::Figure measure_file(const Job& job, const SearchOptions& options, const std::string& path);

Json to_json(const SearchReport& report);

// The recipe as a file that convert::read_recipe takes, with where it comes from. Throws Error.
void write_recipe(const std::string& path, const convert::Recipe& recipe, const Json& about);

}  // namespace carat::quantize
