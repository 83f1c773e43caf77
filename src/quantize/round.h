// Matrices rounded block by block, each error weighted by how large the column's inputs are.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/imatrix_file.h"
#include "quantize/job.h"

namespace carat::quantize {

// What each column of the matrices counts, matrix after matrix; empty: all alike. Never 0, so that
// no weight is thrown away. Throws Error if the entry does not fit the shape.
std::vector<float> column_weights(const io::Imatrix* imatrix, const MatrixPlan& matrix);

// Encodes a matrix, whatever its type, and gives the rows to `sink`, from the first to the last.
// `weights`: of column_weights, or empty. Throws Error naming the matrix.
void encode_rows(const Job& job, const MatrixPlan& matrix, std::span<const float> weights,
                 const std::function<void(int64_t first, std::span<const std::byte> rows)>& sink);

// Encodes a matrix whose type has blocks into the job's store; its whole work is that of
// quant::encode_row with weights. `weights`: of column_weights, or empty.
MatrixResult encode_weighted(const Job& job, const MatrixPlan& matrix,
                             std::span<const float> weights);

// Root mean square of the errors of a matrix in the store relative to its weights, both counted by
// column_weights; negative if the importance matrix lacks it.
double weighted_error(const Job& job, const std::string& name);

// Whether a method may choose the codes of the matrix: its type has a grid (quant/grid.h).
bool has_codes(const MatrixPlan& matrix);

// Leaves every matrix that has codes in the job's store, each rounded block by block by importance
// (encode_weighted).
std::vector<MatrixResult> round_all(const Job& job);
// The method of that name: the same, but without an importance matrix all is left to convert.
std::vector<MatrixResult> run_rounding(const Job& job);

}  // namespace carat::quantize
