#include "train/fake_quant.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/half.h"

namespace carat::train {
namespace {

// Calls f(entry, first element, code offset) for pieces of whole blocks of every matrix.
constexpr int64_t kPiece = 4096;

struct Piece {
  int64_t begin, n;  // elements of the flat array
  int64_t code;      // place among the codes
};

std::vector<Piece> matrix_pieces(const ParameterLayout& layout) {
  std::vector<Piece> pieces;
  int64_t code = 0;
  for (const auto& e : layout.entries()) {
    if (!e.matrix) continue;
    for (int64_t i = 0; i < e.size; i += kPiece) {
      const int64_t n = std::min(kPiece, e.size - i);
      pieces.push_back({e.offset + i, n, code});
      code += n;
    }
  }
  return pieces;
}

template <class F>
void for_pieces(const std::vector<Piece>& pieces, ThreadPool& pool, F&& f) {
  pool.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) f(pieces[static_cast<size_t>(i)]);
  });
}

}  // namespace

float fake_quant_scale(const float* x) noexcept {
  float magnitude = 0, extremum = 0;
  for (int64_t i = 0; i < kFakeQuantBlock; ++i) {
    const float a = std::fabs(x[i]);
    if (a > magnitude) {
      magnitude = a;
      extremum = x[i];
    }
  }
  F16 d = to_f16(to_float(to_bf16(extremum / -8.0f)));
  // A subnormal d is coarse: never so large that the extremum misses code 0.
  while (magnitude < 7.5625f * std::fabs(to_float(d))) --d.bits;
  return to_float(d);
}

float fake_quant_block(const float* x, float* values, uint8_t* codes) noexcept {
  const float d = fake_quant_scale(x);
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  for (int64_t i = 0; i < kFakeQuantBlock; ++i) {
    const float u = x[i] * inverse + 8.5f;
    const int code = u < 0 ? 0 : u >= 15.0f ? 15 : static_cast<int>(u);
    if (codes) codes[i] = static_cast<uint8_t>(code);
    if (values) values[i] = d * static_cast<float>(code - 8);
  }
  return d;
}

void check_quantizable(const model::Weights& weights) {
  const ParameterLayout layout(weights);
  for (size_t id = 0; id < weights.all.size(); ++id) {
    const auto& e = layout[static_cast<int64_t>(id)];
    if (!e.matrix || e.cols % kFakeQuantBlock == 0) continue;
    throw Error({"the model cannot be quantized to Q4_0",
                 {},
                 "tensor " + model::hf_name(weights.refs[id]),
                 "rows of a multiple of 32 elements",
                 std::to_string(e.cols) + " elements",
                 {}});
  }
}

void fake_quant(const ParameterLayout& layout, const float* weights, float* out, ThreadPool& pool) {
  for (const auto& e : layout.entries()) {
    if (e.matrix) continue;
    for (int64_t i = e.offset; i < e.offset + e.size; ++i) out[i] = to_float(to_bf16(weights[i]));
  }
  for_pieces(matrix_pieces(layout), pool, [&](const Piece& p) {
    for (int64_t i = p.begin; i < p.begin + p.n; i += kFakeQuantBlock) {
      fake_quant_block(weights + i, out + i, nullptr);
    }
  });
}

std::vector<uint8_t> quant_codes(const ParameterLayout& layout, const float* weights,
                                 ThreadPool& pool) {
  const std::vector<Piece> pieces = matrix_pieces(layout);
  const int64_t total = pieces.empty() ? 0 : pieces.back().code + pieces.back().n;
  std::vector<uint8_t> codes(static_cast<size_t>(total));
  for_pieces(pieces, pool, [&](const Piece& p) {
    for (int64_t i = 0; i < p.n; i += kFakeQuantBlock) {
      fake_quant_block(weights + p.begin + i, nullptr, codes.data() + p.code + i);
    }
  });
  return codes;
}

double median_scale(const ParameterLayout& layout, const float* weights) {
  std::vector<float> scales;
  for (const Piece& p : matrix_pieces(layout)) {
    for (int64_t i = p.begin; i < p.begin + p.n; i += kFakeQuantBlock) {
      scales.push_back(std::fabs(fake_quant_scale(weights + i)));
    }
  }
  if (scales.empty()) return 0;
  const auto middle = scales.begin() + static_cast<int64_t>(scales.size() / 2);
  std::nth_element(scales.begin(), middle, scales.end());
  return *middle;
}

}  // namespace carat::train
