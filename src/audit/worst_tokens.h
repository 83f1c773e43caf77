// The positions where a candidate is furthest from its reference, with what both expected there.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carat::audit {

// A token that a model expected.
struct Expected {
  int32_t token = 0;
  double probability = 0;
  std::string text;  // filled in with the context
};

struct WorstToken {
  double kld = 0;  // nats
  int64_t chunk = 0;
  int64_t index = 0;                 // tokens of the chunk before the predicted one
  int32_t next = 0;                  // the token that the text has there
  double reference_probability = 0;  // of `next`
  double candidate_probability = 0;
  std::vector<Expected> reference_top;  // most likely first
  std::vector<Expected> candidate_top;
  // Filled in by describe().
  std::string before;     // the text that led there
  std::string next_text;  // `next`
  std::string after;      // what the text goes on with
};

}  // namespace carat::audit
