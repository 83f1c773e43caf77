// What a report says about whole classes of tensors, and the file that keeps a report beside its
// result.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "convert/convert.h"
#include "model/tensors.h"

namespace carat::convert {

// The class that a person knows a tensor by: "attention", "feed-forward", "experts", "token
// embedding", "output matrix", "per-layer table", "per-layer projection", "per-layer gates", "norms
// and scalars".
const char* class_name(model::TensorKind kind);

// The sum of a class.
struct ClassReport {
  std::string name;
  int64_t tensors = 0, kept = 0;  // kept: not written as the format asks
  int64_t bytes = 0;              // in the target
  int64_t weights = 0, weights_bit_exact = 0;
  LatticeStats lattice;
};
// In order of first appearance.
std::vector<ClassReport> class_reports(const std::vector<TensorReport>& tensors);

// The training rule that most blocks of more than zeros follow, with its share if it is not all:
// "signed extremum / -8", "absmax / 7 (99.2 %)"; "none" where no block lies on the lattice; empty
// where none was judged.
std::string rule_text(const LatticeStats& stats);
// Codes 0..15 that no block uses, as a text: "0 and 15", "none". Empty where no code was written.
std::string unused_codes_text(const LatticeStats& stats);
// How many of the weights have each code 0..15, in whole per cent: "12", "<1", "-" for none. All
// empty where no code was written.
std::array<std::string, 16> code_shares(const LatticeStats& stats);

Json to_json(const std::vector<ClassReport>& classes);

// TARGET.carat.json, beside a folder too.
std::string report_path(const std::string& target);
// Writes to_json(report) there, over an earlier one. Throws Error.
void write_report_file(const ConvertReport& report);

}  // namespace carat::convert
