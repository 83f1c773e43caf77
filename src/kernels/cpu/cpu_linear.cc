// Matrix products of CpuOps.
#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/cpu_ops_impl.h"

namespace carat::kernels {
namespace {

// Of quantized activations, per 32 elements.
constexpr int64_t kQuantizedBytes = 48;
// Of static codes, per row, beside the codes.
constexpr int64_t kStaticBytes = 8;

// Tiles of a row-major matrix that are packed before they are multiplied: enough for the kernels'
// streams, few enough to stay in the cache.
constexpr int64_t kPackedTiles = 4;

// Columns of row t of q, whole blocks.
QuantizedRows block_range(const QuantizedRows& q, int64_t t, int64_t begin, int64_t cols) {
  QuantizedRows r = row_range(q, t, 1);
  const int64_t block = begin / kActivationBlock;
  r.cols = cols;
  r.codes += begin;
  r.scales += block;
  r.sums += block;
  r.half_sums += 2 * block;
  r.scaled_sums += block;
  return r;
}

}  // namespace

// One block holds all five arrays, codes first: 32 + 4 * 4 bytes per 32 elements.
QuantizedRows CpuOps::take_quantized(int64_t n, int64_t cols) {
  const int64_t blocks = n * cols / kActivationBlock;
  auto* base = static_cast<std::byte*>(buffers_.take(blocks * kQuantizedBytes));
  QuantizedRows q{.n = n, .cols = cols};
  q.codes = reinterpret_cast<int8_t*>(base);
  q.scales = reinterpret_cast<float*>(base + blocks * 32);
  q.sums = reinterpret_cast<int32_t*>(base + blocks * 36);
  q.half_sums = reinterpret_cast<int16_t*>(base + blocks * 40);
  q.scaled_sums = reinterpret_cast<float*>(base + blocks * 44);
  return q;
}

void CpuOps::give_quantized(QuantizedRows& q) noexcept {
  buffers_.give(q.codes, q.n * q.cols / kActivationBlock * kQuantizedBytes);
  q = {};
}

void CpuOps::quantize(const float* rows, const QuantizedRows& q) {
  spread(q.n, 1, q.cols * 2, [&](int64_t begin, int64_t end, int) {
    table_.quantize_rows(rows + begin * q.cols, row_range(q, begin, end - begin));
  });
}

// One block: codes, then scales, then sums.
StaticRows CpuOps::take_static(int64_t n, int64_t cols) {
  CHECK(cols % kActivationBlock == 0 && cols <= kStaticCols);
  auto* base = static_cast<std::byte*>(buffers_.take(n * (cols + kStaticBytes)));
  StaticRows x{.n = n, .cols = cols};
  x.codes = reinterpret_cast<int8_t*>(base);
  x.scales = reinterpret_cast<float*>(base + n * cols);
  x.sums = reinterpret_cast<int32_t*>(base + n * (cols + 4));
  return x;
}

void CpuOps::give_static(StaticRows& x) noexcept {
  buffers_.give(x.codes, x.n * (x.cols + kStaticBytes));
  x = {};
}

const StaticRows& CpuOps::static_codes_of(CpuValue& x, float scale) {
  for (const StaticCopy& copy : x.static_codes) {
    if (copy.scale == scale) return copy.rows;
  }
  StaticCopy& copy = x.static_codes.emplace_back();
  copy.scale = scale;
  copy.rows = take_static(x.rows, x.cols);
  const StaticRows rows = copy.rows;
  spread(x.rows, 1, x.cols * 2, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      rows.scales[t] = table_.static_codes(x.data + t * x.cols, x.cols, scale,
                                           rows.codes + t * x.cols, rows.sums + t);
    }
  });
  return copy.rows;
}

void CpuOps::reserve_for(const Weight& w) {
  if (!w.tiles()) {
    CHECK(w.dtype == DType::kF32 || w.dtype == DType::kF16 || w.dtype == DType::kBF16);
    reserve_scratch(kFloatPanelRows * w.cols);
  } else if (w.layout == Layout::kRows) {
    CHECK(w.scales.empty());  // codes are multiplied in tiles only
    reserve_scratch(ceil_div(kPackedTiles * w.tile_size(), 4));
  }
}

CpuOps::Operand CpuOps::operand_for(const Weight& w, CpuValue& x) {
  reserve_for(w);
  const std::optional<TileFormat> format = w.tiles();
  CHECK(!is_static(w) || (format && is_channel(*format)));
  Operand operand;
  if (is_static(w)) {
    quantizes_ahead_ = false;
    operand.codes = static_codes_of(x, w.input_scale);
  } else if (format) {
    if (!x.quantized.codes) {
      x.quantized = take_quantized(x.rows, x.cols);
      quantize(x.data, x.quantized);
    }
    operand.quantized = x.quantized;
  } else {
    operand.floats = {x.data, x.cols, x.rows};
  }
  return operand;
}

// Rows of a quantized matrix as they lie in the file, a few tiles at a time.
void CpuOps::multiply_rows(const Weight& w, const std::byte* matrix, RowSpan rows, const Operand& x,
                           const LinearOutput& y, int thread) noexcept {
  const TileLinear kernel = table_.linear_tiles[static_cast<int>(*w.tiles())];
  const int64_t tile_size = w.tile_size(), row_size = w.row_size();
  auto* tiles = reinterpret_cast<std::byte*>(scratch(thread));
  for (int64_t begin = rows.begin; begin < rows.end; begin += kPackedTiles * kTileRows) {
    const int64_t n = std::min(kPackedTiles * kTileRows, rows.end - begin);
    for (int64_t r = 0; r < n; r += kTileRows) {
      pack_tile(w.dtype, matrix + (begin + r) * row_size, std::min(kTileRows, n - r), w.cols,
                tiles + r / kTileRows * tile_size);
    }
    kernel({tiles, tile_size, n, w.cols}, x.quantized, {y.data + (begin - rows.begin), y.stride});
  }
}

void CpuOps::multiply(const Weight& w, int64_t matrix, RowSpan rows, const Operand& x, int64_t n,
                      const LinearOutput& y, int thread) noexcept {
  const std::byte* data = w.data + matrix * w.matrix_size();
  const std::optional<TileFormat> format = w.tiles();
  if (!format) {
    const int64_t size = w.row_size();
    const WeightRows part = {data + rows.begin * size, size, rows.size(), w.cols};
    const FloatLinear kernel = w.dtype == DType::kF32   ? table_.linear_f32
                               : w.dtype == DType::kF16 ? table_.linear_f16
                                                        : table_.linear_bf16;
    kernel(part, x.floats, y, scratch(thread));
  } else if (w.layout == Layout::kRows) {
    multiply_rows(w, data, rows, x, y, thread);
  } else {
    const int64_t size = w.tile_size();
    const TileRows part = {data + rows.begin / kTileRows * size, size, rows.size(), w.cols};
    if (x.codes.codes) {
      table_.linear_channel[static_cast<int>(*format) - static_cast<int>(TileFormat::kC2)](
          part, x.codes, y);
    } else {
      table_.linear_tiles[static_cast<int>(*format)](part, x.quantized, y);
    }
  }
  for (int64_t t = 0; w.output_scale > 0 && t < n; ++t) {
    float* row = y.data + t * y.stride;
    table_.static_round(row, rows.size(), w.output_scale, row);
  }
}

Value CpuOps::linear(const Value& x, const Weight& w) {
  CHECK(w.data && w.count == 1 && x->cols == w.cols);
  const int64_t n = x->rows;
  Value y = make(n, w.rows);
  if (n == 0) return y;
  const Operand operand = operand_for(w, cpu(x));
  float* out = cpu(y).data;
  spread_rows(w.rows, kTileRows, w.cols, n, [&](RowSpan rows, int thread) {
    multiply(w, 0, rows, operand, n, {out + rows.begin, w.rows}, thread);
  });
  return y;
}

// Blocks of 32 results are rounded for the next product while they are in the cache, so that it
// needs no pass and no wait of its own.
void CpuOps::activate(float* gate, const float* up, int64_t n, int64_t width, RowSpan rows,
                      const QuantizedRows& q) noexcept {
  for (int64_t t = 0; t < n; ++t) {
    float* row = gate + t * width + rows.begin;
    table_.geglu(row, up + t * width + rows.begin, rows.size(), row);
    if (q.codes) table_.quantize_rows(row, block_range(q, t, rows.begin, rows.size()));
  }
}

Value CpuOps::gated(const Value& x, const Weight& gate, const Weight& up) {
  CHECK(gate.data && up.data && gate.count == 1 && up.count == 1);
  CHECK(gate.rows == up.rows && gate.cols == x->cols && up.cols == x->cols);
  const int64_t n = x->rows, width = gate.rows;
  Value y = make(n, width);
  if (n == 0) return y;
  Value hidden = make(n, width);
  // One of each kind if the two differ; a shared cache if not.
  const Operand gate_operand = operand_for(gate, cpu(x));
  const Operand up_operand = operand_for(up, cpu(x));
  QuantizedRows& q = cpu(y).quantized;
  if (quantizes_ahead_ && gate.tiles() && width % kActivationBlock == 0) {
    q = take_quantized(n, width);
  }
  float *g = cpu(y).data, *u = cpu(hidden).data;
  spread_rows(width, kActivationBlock, 2 * gate.cols, n, [&](RowSpan rows, int thread) {
    multiply(gate, 0, rows, gate_operand, n, {g + rows.begin, width}, thread);
    multiply(up, 0, rows, up_operand, n, {u + rows.begin, width}, thread);
    activate(g, u, n, width, rows, q);
  });
  return y;
}

}  // namespace carat::kernels
