#include "quantize/round.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "convert/lattice.h"
#include "quant/blocks.h"
#include "quant/grid.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

constexpr int64_t kWindow = int64_t{1} << 22;  // elements
// Beside the mean of its matrix.
constexpr float kLeast = 1e-5f;

// Blocks of a row that a 4-bit lattice has trained, as they were.
void keep_lattice(const float* values, int64_t n, DType source, std::byte* out) {
  for (int64_t i = 0; i < n; i += quant::kBlock, out += sizeof(quant::BlockQ4_0)) {
    const auto grid =
        source == DType::kBF16 ? convert::Grid::kBF16 : convert::grid_of(values + i, quant::kBlock);
    convert::Recovered found;
    if (convert::recover_block(values + i, grid, &found)) {
      std::memcpy(out, &found.block, sizeof(found.block));
    }
  }
}

}  // namespace

std::vector<float> column_weights(const io::Imatrix* imatrix, const MatrixPlan& matrix) {
  const io::ImatrixEntry* entry = imatrix != nullptr ? imatrix->find(matrix.name) : nullptr;
  if (entry == nullptr) return {};
  const auto columns = static_cast<size_t>(matrix.shape.back());
  const size_t n = matrix.shape.size() > 2 ? static_cast<size_t>(matrix.shape[0]) : 1;
  if (entry->sums.size() != columns * n && entry->sums.size() != columns) {
    throw Error({"the importance matrix is of another model",
                 {},
                 matrix.name,
                 std::to_string(columns * n) + " values",
                 std::to_string(entry->sums.size()),
                 {}});
  }
  const std::vector<float> means = entry->means();
  double all = 0;
  for (const float m : means) all += m;
  // Of a matrix whose inputs were all 0.
  const auto even = all > 0 ? static_cast<float>(all / static_cast<double>(means.size())) : 1.0f;
  std::vector<float> weights;
  for (size_t i = 0; i < n; ++i) {
    const float* const from = means.data() + i * columns % means.size();
    double sum = 0;
    for (size_t c = 0; c < columns; ++c) sum += from[c];
    if (!(sum > 0)) {
      weights.insert(weights.end(), columns, even);
      continue;
    }
    const auto least = static_cast<float>(sum / static_cast<double>(columns)) * kLeast;
    for (size_t c = 0; c < columns; ++c) weights.push_back(std::max(from[c], least));
  }
  return weights;
}

void encode_rows(
    const Job& job, const MatrixPlan& matrix, std::span<const float> weights,
    const std::function<void(int64_t first, std::span<const std::byte> rows)>& sink) try {
  const int64_t columns = matrix.shape.back();
  const int64_t rows = *element_count(matrix.shape) / columns;
  const int64_t per_matrix = matrix.shape.size() > 2 ? matrix.shape[1] : rows;
  const int64_t row_size = row_bytes(matrix.dtype, columns);
  const DType source = job.rows.dtype(matrix.ref);
  const int64_t window = std::max<int64_t>(1, kWindow / columns);
  std::vector<float> values(static_cast<size_t>(std::min(window, rows) * columns));
  std::vector<std::byte> out;
  // The fits to weights search more than the types' own rules do.
  const std::vector<float> ones(weights.empty() ? static_cast<size_t>(columns) : 0, 1.0f);
  for (int64_t first = 0; first < rows; first += window) {
    job.check_stop();
    const int64_t n = std::min(window, rows - first);
    job.rows.read(matrix.ref, first, n, values.data());
    out.resize(static_cast<size_t>(n * row_size));
    job.pool.parallel_for(n, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        const float* const w =
            weights.empty() ? ones.data() : weights.data() + (first + r) / per_matrix * columns;
        quant::encode_row(matrix.dtype, values.data() + r * columns, out.data() + r * row_size,
                          columns, w);
        if (matrix.dtype == DType::kQ4_0) {
          keep_lattice(values.data() + r * columns, columns, source, out.data() + r * row_size);
        }
      }
    });
    sink(first, out);
  }
} catch (const Error& e) {
  throw e.with_place("tensor " + matrix.name);
}

MatrixResult encode_weighted(const Job& job, const MatrixPlan& matrix,
                             std::span<const float> weights) {
  encode_rows(job, matrix, weights, [&](int64_t first, std::span<const std::byte> rows) {
    job.store.put(matrix.name, matrix.dtype, matrix.shape, first, rows);
  });
  return {matrix.name, weights.empty() ? "round" : "importance", -1};
}

double weighted_error(const Job& job, const std::string& name) {
  const auto found = std::find_if(job.matrices.begin(), job.matrices.end(),
                                  [&](const MatrixPlan& m) { return m.name == name; });
  CHECK(found != job.matrices.end());
  const std::vector<float> weights = column_weights(job.imatrix, *found);
  if (weights.empty()) return -1;
  if (is_kept(job, *found)) return 0;
  const int64_t columns = found->shape.back();
  const int64_t rows = *element_count(found->shape) / columns;
  const int64_t per_matrix = found->shape.size() > 2 ? found->shape[1] : rows;
  const int64_t window = std::max<int64_t>(1, kWindow / columns);
  std::vector<std::byte> bytes;
  std::vector<float> values, got;
  std::vector<double> lost, whole;
  double all_lost = 0, all = 0;
  for (int64_t first = 0; first < rows; first += window) {
    job.check_stop();
    const int64_t n = std::min(window, rows - first);
    values.resize(static_cast<size_t>(n * columns));
    got.resize(values.size());
    bytes.resize(static_cast<size_t>(n * row_bytes(found->dtype, columns)));
    lost.assign(static_cast<size_t>(n), 0);
    whole.assign(static_cast<size_t>(n), 0);
    job.rows.read(found->ref, first, n, values.data());
    job.store.read(name, first, bytes);
    job.pool.parallel_for(n, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        const float* const w = weights.data() + (first + r) / per_matrix * columns;
        const float* const x = values.data() + r * columns;
        float* const y = got.data() + r * columns;
        quant::decode_row(found->dtype, bytes.data() + r * row_bytes(found->dtype, columns), y,
                          columns);
        for (int64_t c = 0; c < columns; ++c) {
          lost[static_cast<size_t>(r)] +=
              double{w[c]} * (double{y[c]} - x[c]) * (double{y[c]} - x[c]);
          whole[static_cast<size_t>(r)] += double{w[c]} * x[c] * x[c];
        }
      }
    });
    for (const double e : lost) all_lost += e;
    for (const double e : whole) all += e;
  }
  return all > 0 ? std::sqrt(all_lost / all) : 0;
}

bool is_kept(const Job& job, const MatrixPlan& matrix) {
  return job.rows.dtype(matrix.ref) == matrix.dtype;
}

bool has_codes(const Job& job, const MatrixPlan& matrix) {
  return quant::has_grid(matrix.dtype) && !is_kept(job, matrix);
}

std::vector<MatrixResult> list_kept(const Job& job) {
  std::vector<MatrixResult> results;
  for (const MatrixPlan& m : job.matrices) {
    if (quant::has_grid(m.dtype) && is_kept(job, m)) results.push_back({m.name, "kept", -1});
  }
  return results;
}

std::vector<MatrixResult> round_all(const Job& job) {
  std::vector<MatrixResult> results = list_kept(job);
  int64_t done = 0, total = 0;
  for (const MatrixPlan& m : job.matrices) total += *element_count(m.shape);
  for (const MatrixPlan& m : job.matrices) {
    if (job.progress) job.progress(done, total, m.name);
    done += *element_count(m.shape);
    if (!has_codes(job, m)) continue;
    results.push_back(encode_weighted(job, m, column_weights(job.imatrix, m)));
  }
  return results;
}

std::vector<MatrixResult> run_rounding(const Job& job) {
  return job.imatrix == nullptr ? list_kept(job) : round_all(job);
}

}  // namespace carat::quantize
