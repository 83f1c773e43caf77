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
// `weights`: of column_weights, or empty. Blocks of Q4_0 whose weights lie on the lattice stay
// there (convert/lattice.h), as convert has it. Throws Error naming the matrix.
void encode_rows(const Job& job, const MatrixPlan& matrix, std::span<const float> weights,
                 const std::function<void(int64_t first, std::span<const std::byte> rows)>& sink);

// Encodes a matrix whose type has blocks into the job's store; its whole work is that of
// quant::encode_row with weights. `weights`: of column_weights, or empty.
MatrixResult encode_weighted(const Job& job, const MatrixPlan& matrix,
                             std::span<const float> weights);

// Root mean square of the errors of a matrix, in the store or kept, relative to its weights, both
// counted by column_weights; negative if the importance matrix lacks it.
double weighted_error(const Job& job, const std::string& name);

// Whether the matrix has the type of the source's tensor: its bytes are the source's, whatever the
// method. Nobody puts it in the store, and convert copies it.
bool is_kept(const Job& job, const MatrixPlan& matrix);
// Whether a method chooses the codes of the matrix: its type has a grid (quant/grid.h), and it is
// not kept.
bool has_codes(const Job& job, const MatrixPlan& matrix);
// Of all matrices with codes that are kept, for a method's results.
std::vector<MatrixResult> list_kept(const Job& job);

// Leaves every matrix that has codes in the job's store, each rounded block by block by importance
// (encode_weighted). The results are of those, and of what is kept.
std::vector<MatrixResult> round_all(const Job& job);
// The method of that name: the same, but without an importance matrix all is left to convert.
std::vector<MatrixResult> run_rounding(const Job& job);

}  // namespace carat::quantize
