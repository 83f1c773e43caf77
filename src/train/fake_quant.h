// Q4_0 inside training: the forward pass sees what the exported file will hold, the gradient
// passes straight through (dL/dw = dL/dw_hat, clipped weights included; none through the scale).
//
// Blocks of 32 along a row. The scale is the signed element of largest magnitude over -8, rounded
// to a value that bfloat16 and binary16 both hold exactly; the code is min(15, trunc(w / d + 8.5)).
// Because of that rounding the exported bf16 value of the extremum is exactly -8 d, so that the
// plain Q4_0 rule finds the same d and the same codes again in the bf16 checkpoint: what is
// trained, the bf16 file's Q4_0 and its dequantized values are the same numbers. Norms and scalars
// are rounded to bfloat16, as the export stores them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "train/parameters.h"

namespace carat::train {

inline constexpr int64_t kFakeQuantBlock = 32;

// The scale of a block.
float fake_quant_scale(const float* block) noexcept;

// Quantizes one block; returns its scale. Either output may be null.
float fake_quant_block(const float* block, float* values, uint8_t* codes) noexcept;

// Throws Error if a matrix has rows that are not whole blocks.
void check_quantizable(const model::Weights& weights);

// out = what the forward pass uses, for all parameters. `out` and `weights` hold layout.total().
void fake_quant(const ParameterLayout& layout, const float* weights, float* out, ThreadPool& pool);

// Codes of all matrices, in the order of the layout (for counting changes).
std::vector<uint8_t> quant_codes(const ParameterLayout& layout, const float* weights,
                                 ThreadPool& pool);
// Median |scale| over all blocks.
double median_scale(const ParameterLayout& layout, const float* weights);

}  // namespace carat::train
