// What inspect tells of a checkpoint of codes: which kind it is, bits and scales by class, and
// whether 4-bit scales are those of the lattice or 8/7.5 too large (scale_shift.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/thread_pool.h"
#include "convert/scale_shift.h"
#include "convert/transcode.h"
#include "model/config.h"
#include "model/stored.h"

namespace carat::convert {

struct CodedReport {
  // "mobile-transformers", "mobile-ct", "w4a16-ct", or "compressed-tensors" for other choices of
  // bits and groups; empty: no codes.
  std::string kind;

  struct Class {
    std::string name;           // "attention"
    int bits = 0;               // of a code
    int64_t scale_columns = 0;  // that share a scale; 0: a whole row
    int64_t parameters = 0, weights = 0, bytes = 0;
    // Parameters whose input, or output, is rounded to fixed steps.
    int64_t static_inputs = 0, static_outputs = 0;
  };
  std::vector<Class> classes;  // of parameters that are used, in order of first appearance
  int64_t static_kv_layers = 0;

  // Of 4-bit groups of 32; sampled unless the whole was asked for. `pairs`: beside float weights of
  // another checkpoint.
  std::optional<ShiftStats> shift;
  std::optional<ShiftPairs> pairs;
  bool sampled = false;
};

CodedReport describe_codes(const model::Config& config, const model::StoredTensors& stored);

// Whether find_shift has something to say of it.
bool has_small_groups(const SourceTensor& tensor);

// Adds what the groups of one parameter show to `report`: of all of them, or of `spans` stretches
// of 64, evenly spread. `floats` (may be null): the same parameter in another checkpoint. REQUIRES:
// has_small_groups(coded). Throws Error if they cannot be read.
void find_shift(ThreadPool& pool, const SourceTensor& coded, const SourceTensor* floats, bool all,
                int64_t spans, CodedReport& report);

// Sentences for people; empty without codes.
std::vector<std::string> shift_sentences(const CodedReport& report);

Json to_json(const CodedReport& report);

}  // namespace carat::convert
