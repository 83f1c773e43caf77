// Which types a matrix could have, and what each would do to it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantize/job.h"
#include "quantize/lagrange.h"

namespace carat::quantize {

class MeasureLog;

// A matrix in one type.
struct TypeChoice {
  DType dtype = DType::kF32;
  int64_t bytes = 0;  // in a GGUF file, with the padding behind it
  // Sum of squared errors, each counted as much as the importance matrix has its column: of what
  // the matrix gives for the text, as far as inputs are not correlated. Of matrices with more
  // than 4M weights estimated from rows that lie evenly. 0 where the matrix keeps its bytes.
  double error = 0;
  // The same by the weights, root of the mean square.
  double relative_error = 0;
};

struct MatrixChoices {
  MatrixPlan plan;  // its dtype is that of nothing yet
  // Bytes ascending, errors descending: no type that another one beats in both.
  std::vector<TypeChoice> types;
};

// Bytes of a tensor in a GGUF file, with the padding behind it.
int64_t bytes_in_file(DType dtype, const Shape& shape);

// Types that a matrix of a GGUF file may have and that carat can write: quantized ones, F16, BF16,
// F32.
std::vector<DType> writable_types();

// Bytes of the job's matrices in the smallest of the types that fit their rows: what list_choices
// leaves is no smaller, be the values what they may. Throws Error naming a matrix that none fits.
[[nodiscard]] int64_t smallest_bytes(const Job& job, std::span<const DType> allowed);

struct ChoiceOptions {
  int64_t sampled = int64_t{1} << 22;  // weights of a matrix that are tried
  MeasureLog* log = nullptr;           // knows what was tried already; may be null
};

// Of each matrix of the job, whose own types do not count: those among `allowed` that its rows fit
// and that hold all of its values. Throws Error naming a matrix that none is left for.
std::vector<MatrixChoices> list_choices(const Job& job, std::span<const DType> allowed,
                                        const ChoiceOptions& options = {});

}  // namespace carat::quantize
