// One entry to every storage scheme: rows of a type to floats and back. Scalar, the specification
// in code and the oracle of every faster version; each scheme's own header documents its values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace carat::quant {

[[nodiscard]] bool can_decode(DType dtype) noexcept;
[[nodiscard]] bool can_encode(DType dtype) noexcept;

// Writes the n values that `row` holds to `out`. Needs no alignment of `row`.
// REQUIRES: n is a multiple of the type's block. Throws Error naming a type it cannot decode.
void decode_row(DType dtype, const std::byte* row, float* out, int64_t n);

// Writes n values to `row` (row_bytes(dtype, n) bytes) by the scheme's own rounding rule.
// REQUIRES: n is a multiple of the type's block. Throws Error naming a type it cannot encode, and,
// where the type has no such value, the place of a value that is not finite or too large for it.
// F32 and BF16 keep infinities and NaN; F16 keeps them too, but refuses finite values above 65504.
//
// With weights (n of them, finite, not negative) the type's codes are fitted to the weighted
// squared error, and in that no type loses more than by its rule without weights. A block whose
// weights are all 0, and float types, ignore them.
void encode_row(DType dtype, const float* values, std::byte* row, int64_t n,
                const float* weights = nullptr);

}  // namespace carat::quant
