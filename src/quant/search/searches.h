// The table of one instruction set, from its struct Isa (quant/search/vectors.h).
#pragma once

#include "quant/search/affine.h"
#include "quant/search/blocks32.h"
#include "quant/search/iq4.h"
#include "quant/search/symmetric.h"
#include "quant/search/table.h"

namespace carat::quant::search {
namespace {

template <class Isa>
constexpr Searches searches_of(const char* isa) {
  return {.isa = isa,
          .affine_lines = affine_lines<Isa>,
          .columns = columns<Isa>,
          .affine_scales = affine_scales<Isa>,
          .affine_sums = affine_sums<Isa>,
          .symmetric_steps = symmetric_steps<Isa>,
          .least_rounding = least_rounding<Isa>,
          .symmetric_scales = symmetric_scales<Isa>,
          .symmetric_sums = symmetric_sums<Isa>,
          .iq4_step = iq4_step<Isa>,
          .iq4_scales = iq4_scales<Isa>,
          .iq4_codes = iq4_codes<Isa>,
          .scaled_step = scaled_step<Isa>,
          .scaled_errors = scaled_errors<Isa>,
          .line_errors = line_errors<Isa>,
          .refine_lines = refine_lines<Isa>};
}

}  // namespace
}  // namespace carat::quant::search
