#include "quant/search/searches.h"

#include "quant/search/isa_tables.h"

namespace carat::quant::search {
namespace {

struct Generic {
  static constexpr int kWidth = 4;
  using Floats = float __attribute__((vector_size(16)));
  using Ints = int32_t __attribute__((vector_size(16)));
  using Halves = float __attribute__((vector_size(8)));
  using Doubles = double __attribute__((vector_size(16)));

  static CARAT_SEARCH Floats clamp(Floats v, Floats lo, Floats hi) {
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
  }
  static CARAT_SEARCH int compress(float* to, Floats v, Ints keep) {
    return compress_lanes<Generic>(to, v, keep);
  }
  static CARAT_SEARCH Floats iq4_levels(Floats v) { return iq4_levels_by_steps<Generic>(v); }
};

}  // namespace

const Searches kGenericSearches = searches_of<Generic>("generic");

}  // namespace carat::quant::search
