// Scales for blocks of 32 elements whose squared errors count differently. (Where all count alike,
// the encoders of these types keep the rules by which everybody knows them.)
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/blocks.h"

namespace carat::quant {

// value = d * code
struct ScaledCodes {
  F16 d = {};
  int8_t code[kBlock] = {};
};

// Codes in [lo, hi], lo < 0 < hi. A search over scales of both signs that cut up to half of the
// extremum off, with a least-squares refit and the binary16 neighbours of the result. Never worse,
// in the weighted error, than extremum / lo with the nearest codes. REQUIRES: x finite, w >= 0.
[[nodiscard]] ScaledCodes fit_scaled(const float* x, const float* w, int lo, int hi) noexcept;

// value = d * code + m
struct LineCodes {
  F16 d = {}, m = {};
  uint8_t code[kBlock] = {};
};

// Codes in [0, levels]. Never worse than d = (max - min) / levels, m = min with the nearest codes.
[[nodiscard]] LineCodes fit_line(const float* x, const float* w, int levels) noexcept;

}  // namespace carat::quant
