#include "quantize/choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "convert/recipe.h"
#include "io/gguf_metadata.h"
#include "quant/scheme.h"
#include "quantize/measure_log.h"
#include "quantize/round.h"

namespace carat::quantize {
namespace {

constexpr int64_t kAlignment = 32;             // of tensors in the files that carat writes
constexpr int64_t kWindow = int64_t{1} << 22;  // weights that are looked through at a time

// Some rows of a matrix, with what their columns count.
struct Rows {
  int64_t columns = 0;
  std::vector<float> values;   // [n, columns]
  std::vector<float> weights;  // the same
  double share = 1;            // of all rows
  int64_t n() const { return static_cast<int64_t>(values.size()) / columns; }
};

Rows sample_rows(const Job& job, const MatrixPlan& m, int64_t sampled) {
  Rows rows;
  rows.columns = m.shape.back();
  const int64_t all = *element_count(m.shape) / rows.columns;
  const int64_t per_matrix = m.shape.size() > 2 ? m.shape[1] : all;
  const int64_t n = std::clamp<int64_t>(sampled / rows.columns, 1, all);
  const std::vector<float> weights = column_weights(job.imatrix, m);
  rows.values.resize(static_cast<size_t>(n * rows.columns));
  rows.weights.assign(rows.values.size(), 1.0f);
  rows.share = static_cast<double>(n) / static_cast<double>(all);
  for (int64_t i = 0; i < n; ++i) {
    job.check_stop();
    const int64_t row = i * all / n;
    job.rows.read(m.ref, row, 1, rows.values.data() + i * rows.columns);
    if (weights.empty()) continue;
    std::copy_n(weights.begin() + row / per_matrix * rows.columns, rows.columns,
                rows.weights.begin() + i * rows.columns);
  }
  return rows;
}

// The row with the value that types hold least: one that is not finite, or the largest.
std::vector<float> hardest_row(const Job& job, const MatrixPlan& m) {
  const int64_t columns = m.shape.back(), all = *element_count(m.shape) / columns;
  const int64_t window = std::clamp<int64_t>(kWindow / columns, 1, all);
  std::vector<float> values(static_cast<size_t>(window * columns)), row;
  std::vector<float> largest(static_cast<size_t>(window));
  float most = -1;
  for (int64_t first = 0; first < all; first += window) {
    job.check_stop();
    const int64_t n = std::min(window, all - first);
    job.rows.read(m.ref, first, n, values.data());
    job.pool.parallel_for(n, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) {
        float found = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const float x = std::fabs(values[static_cast<size_t>(r * columns + c)]);
          found = x <= found ? found : x;  // takes what is not a number too
          if (!std::isfinite(found)) break;
        }
        largest[static_cast<size_t>(r)] = found;
      }
    });
    for (int64_t r = 0; r < n; ++r) {
      const float found = largest[static_cast<size_t>(r)];
      if (found <= most) continue;
      most = found;
      row.assign(values.begin() + r * columns, values.begin() + (r + 1) * columns);
      if (!std::isfinite(most)) return row;
    }
  }
  return row;
}

// Whether the row can be encoded.
bool holds(DType type, const std::vector<float>& row) {
  const auto columns = static_cast<int64_t>(row.size());
  std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(type, columns)));
  try {
    quant::encode_row(type, row.data(), bytes.data(), columns, nullptr);
  } catch (const Error&) {
    return false;  // too large a value
  }
  return true;
}

TypeChoice try_type(const Job& job, const MatrixPlan& m, DType type, const Rows& rows) {
  std::vector<double> lost(static_cast<size_t>(rows.n())), whole(lost.size());
  job.pool.parallel_for(rows.n(), 4, [&](int64_t begin, int64_t end, int) {
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(type, rows.columns)));
    std::vector<float> got(static_cast<size_t>(rows.columns));
    for (int64_t r = begin; r < end; ++r) {
      const float* const x = rows.values.data() + r * rows.columns;
      const float* const w = rows.weights.data() + r * rows.columns;
      quant::encode_row(type, x, bytes.data(), rows.columns, w);
      quant::decode_row(type, bytes.data(), got.data(), rows.columns);
      double e = 0, s = 0;
      for (int64_t c = 0; c < rows.columns; ++c) {
        const double d = double{got[static_cast<size_t>(c)]} - x[c];
        e += double{w[c]} * d * d;
        s += double{w[c]} * x[c] * x[c];
      }
      lost[static_cast<size_t>(r)] = e;
      whole[static_cast<size_t>(r)] = s;
    }
  });
  double all_lost = 0, all = 0;
  for (const double e : lost) all_lost += e;
  for (const double s : whole) all += s;
  TypeChoice choice;
  choice.dtype = type;
  choice.bytes = bytes_in_file(type, m.shape);
  choice.error = all_lost / rows.share;
  choice.relative_error = all > 0 ? std::sqrt(all_lost / all) : 0;
  return choice;
}

// Leaves those that no other one beats.
void keep_useful(std::vector<TypeChoice>& types) {
  std::stable_sort(types.begin(), types.end(), [](const TypeChoice& a, const TypeChoice& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.error < b.error;
  });
  std::vector<TypeChoice> useful;
  for (const TypeChoice& t : types) {
    if (useful.empty() || t.error < useful.back().error) useful.push_back(t);
  }
  types = std::move(useful);
}

std::vector<TypeChoice> try_types(const Job& job, const MatrixPlan& m,
                                  std::span<const DType> allowed, int64_t sampled) {
  std::vector<TypeChoice> types;
  const Rows rows = sample_rows(job, m, sampled);
  // Of a matrix that is tried as a whole every row is looked at anyway.
  const bool whole = rows.share == 1;
  const std::vector<float> hardest = whole ? std::vector<float>() : hardest_row(job, m);
  for (const DType type : allowed) {
    job.check_stop();
    if (!convert::fits_rows(job.source.config(), m.ref, type)) continue;
    if (job.rows.dtype(m.ref) == type) {
      types.push_back({type, bytes_in_file(type, m.shape), 0, 0});  // is_kept()
      continue;
    }
    if (!whole && !holds(type, hardest)) continue;
    try {
      types.push_back(try_type(job, m, type, rows));
    } catch (const Error&) {
      // Too large a value for the type.
    }
  }
  return types;
}

[[noreturn]] void fail_without_type(const MatrixPlan& m, std::span<const DType> allowed) {
  std::vector<const char*> names;
  for (const DType type : allowed) names.push_back(name_of(type));
  throw Error({"no type is left for the matrix",
               {},
               "tensor " + m.name,
               fmt::format("one that fits rows of {} weights", m.shape.back()),
               fmt::format("{}", fmt::join(names, ", ")),
               "allow a type with smaller blocks, such as q8_0 or f16"});
}

}  // namespace

int64_t bytes_in_file(DType dtype, const Shape& shape) {
  return round_up(*byte_count(dtype, shape), kAlignment);
}

std::vector<DType> writable_types() {
  std::vector<DType> types;
  for (const DTypeInfo& i : all_dtypes()) {
    if (i.gguf_id >= 0 && i.computable && quant::can_encode(i.dtype)) types.push_back(i.dtype);
  }
  return types;
}

int64_t smallest_bytes(const Job& job, std::span<const DType> allowed) {
  int64_t sum = 0;
  for (const MatrixPlan& m : job.matrices) {
    int64_t least = 0;
    for (const DType type : allowed) {
      if (!convert::fits_rows(job.source.config(), m.ref, type)) continue;
      const int64_t bytes = bytes_in_file(type, m.shape);
      least = least == 0 ? bytes : std::min(least, bytes);
    }
    if (least == 0) fail_without_type(m, allowed);
    sum += least;
  }
  return sum;
}

std::vector<MatrixChoices> list_choices(const Job& job, std::span<const DType> allowed,
                                        const ChoiceOptions& options) {
  std::vector<MatrixChoices> all;
  int64_t done = 0, total = 0;
  for (const MatrixPlan& m : job.matrices) total += *element_count(m.shape);
  for (const MatrixPlan& m : job.matrices) {
    if (job.progress) job.progress(done, total, "trying types of " + m.name);
    done += *element_count(m.shape);
    MatrixChoices c{m, {}};
    const std::vector<TypeChoice>* known =
        options.log != nullptr ? options.log->find_types(m.name) : nullptr;
    if (known != nullptr) {
      c.types = *known;
      for (TypeChoice& t : c.types) t.bytes = bytes_in_file(t.dtype, m.shape);
    } else {
      c.types = try_types(job, m, allowed, options.sampled);
      keep_useful(c.types);
      if (c.types.empty()) fail_without_type(m, allowed);
      if (options.log != nullptr) options.log->add_types(m.name, c.types);
    }
    all.push_back(std::move(c));
  }
  return all;
}

}  // namespace carat::quantize
