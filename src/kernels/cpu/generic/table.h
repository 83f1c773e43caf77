// The scalar kernels as a table: kernels/scalar made to fit, in readable loops.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::generic {

extern const KernelTable kTable;

void quantize_rows(const float* rows, const QuantizedRows& x) noexcept;

extern const TileLinear kLinearTiles[kTileFormats];
extern const ChannelLinear kLinearChannel[3];

void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                 float* scratch) noexcept;

// Rounds n values that share one scale; returns the scale.
float quantize(const float* x, int64_t n, int8_t* codes) noexcept;

}  // namespace carat::kernels::generic
