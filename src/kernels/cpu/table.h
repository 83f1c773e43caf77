// The leaf kernels of one instruction set. They know pointers and sizes, start no threads, allocate
// nothing, and every table gives the same bits: the order of every float operation is the one of
// ops.h and of kernels/scalar. Pointers need no alignment beyond their element type; weights
// (std::byte) need none. Except where said, outputs may not overlap inputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/tiles.h"

namespace carat::kernels {

// Elements that share one scale in quantized activations.
inline constexpr int64_t kActivationBlock = 32;

// n rows of activations rounded to int8: x = code * scale per 32 elements of a row.
struct QuantizedRows {
  int64_t n = 0;
  int64_t cols = 0;              // a multiple of 32
  int8_t* codes = nullptr;       // [n, cols], -127..127
  float* scales = nullptr;       // [n, cols / 32]
  int32_t* sums = nullptr;       // [n, cols / 32]: 8 * sum of the block's codes
  int16_t* half_sums = nullptr;  // [n, cols / 16]: sum of 16 codes
  float* scaled_sums = nullptr;  // [n, cols / 32]: scale * float(sum of the block's codes)
};

// n rows of activations rounded to int8 with the scale that the checkpoint states (mobile format):
// x = code * scale.
struct StaticRows {
  int64_t n = 0;
  int64_t cols = 0;         // a multiple of 32, at most kStaticCols
  int8_t* codes = nullptr;  // [n, cols], -128..127
  float* scales = nullptr;  // [n]: the scale, or NaN where a row holds a NaN
  int32_t* sums = nullptr;  // [n]: sum of the row's codes
};

// Sums of products of two int8 in 32 bits: 2^14 * 2^16 would reach 2^30.
inline constexpr int64_t kStaticCols = int64_t{1} << 16;

// Consecutive tiles of a matrix (kernels/tiles.h); `rows` of them are real.
struct TileRows {
  const std::byte* data = nullptr;
  int64_t tile_bytes = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Consecutive rows of a weight matrix.
struct WeightRows {
  const std::byte* data = nullptr;
  int64_t row_bytes = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// n rows of floats, row t at data + t * stride.
struct FloatRows {
  const float* data = nullptr;
  int64_t stride = 0;
  int64_t n = 0;
};

// y[t * stride + o] for token t and weight row o.
struct LinearOutput {
  float* data = nullptr;
  int64_t stride = 0;
};

// Consecutive keys of one head inside one attention segment, as floats.
struct KeySegment {
  const float* k = nullptr;  // [n, head_dim]
  const float* v = nullptr;  // [n, head_dim]
  int64_t first = 0;         // place of key 0 in its segment
  int64_t n = 0;             // >= 1
};

// Rows of numbers rounded to 16 bits for products with int8 pages: x = code * scale.
struct CodeRows {
  int16_t* codes = nullptr;  // [n, stride], in an order that is the table's own
  int64_t stride = 0;        // at least the row's length rounded up to 16
  float* scales = nullptr;   // [n]
  int32_t* sums = nullptr;   // [n]: 128 * sum of the codes
};

// One K/V head of an int8 page (kv_pages.h), or of an int4 page that was unpacked.
struct CodePage {
  const uint8_t* k = nullptr;
  const uint8_t* v = nullptr;
  const float* k_scale = nullptr;  // [kKvPageTokens]
  const float* v_scale = nullptr;
};

// Places of a page that a query sees: [begin, end), not empty.
struct Places {
  int32_t begin = 0;
  int32_t end = 0;
};

using TileLinear = void (*)(const TileRows& w, const QuantizedRows& x,
                            const LinearOutput& y) noexcept;
using ChannelLinear = void (*)(const TileRows& w, const StaticRows& x,
                               const LinearOutput& y) noexcept;
// scratch: kFloatPanelRows * cols floats.
using FloatLinear = void (*)(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                             float* scratch) noexcept;

inline constexpr int64_t kFloatPanelRows = 4;

struct KernelTable {
  const char* isa;

  // -- matrices: y[t, o] = sum_i x[t, i] * w[o, i] --------------------------------------------
  // Rounds n rows of x.cols floats (contiguous) into x. Per 32 elements: scale = max|x| / 127, code
  // = round half to even of x * (1 / scale). A block below 2^-100 counts as zero; a block with an
  // infinity or NaN gets scale NaN and codes 0.
  void (*quantize_rows)(const float* rows, const QuantizedRows& x) noexcept;
  // n floats to static codes, clamp(round half to even(x / scale), -128, 127), and 0 for NaN.
  // Returns scale, or NaN if one of them is NaN. sum: of the codes. REQUIRES: scale > 0 (as below),
  // n < 2^24.
  float (*static_codes)(const float* x, int64_t n, float scale, int8_t* codes,
                        int32_t* sum) noexcept;
  // y = such a code times scale; NaN stays. y may be x.
  void (*static_round)(const float* x, int64_t n, float scale, float* y) noexcept;
  const TileLinear* linear_tiles;       // [kTileFormats], by TileFormat
  const ChannelLinear* linear_channel;  // [3]: C2, C4, C8 with static activations
  FloatLinear linear_f32;
  FloatLinear linear_f16;
  FloatLinear linear_bf16;

  // -- rows -------------------------------------------------------------------------------------
  // n_groups groups of `group` elements; w [group] or null. y may be x.
  void (*rms_norm)(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
                   float* y) noexcept;
  // out = x + rms_norm(y; w), n rows of `cols`.
  void (*add_rms_norm)(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                       float eps, float* out) noexcept;
  // Turns n_heads heads of one row by cos, sin [n_pairs]; pairs from n_pairs on are copied.
  void (*rope)(const float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t n_heads,
               int64_t head_dim, float* y) noexcept;

  // -- elements (outputs may be inputs) -----------------------------------------------------------
  void (*add)(const float* a, const float* b, int64_t n, float* y) noexcept;
  void (*scale)(const float* x, int64_t n, float factor, float* y) noexcept;
  void (*multiply_add)(const float* x, int64_t n, float factor, float* y) noexcept;  // y += f * x
  void (*geglu)(const float* gate, const float* up, int64_t n, float* y) noexcept;
  void (*softcap)(const float* x, int64_t n, float cap, float* y) noexcept;

  // -- attention ----------------------------------------------------------------------------------
  // n_q queries [n_q, head_dim] over the keys of one segment: maximum score and sum of weights
  // [n_q], weighted sums of values [n_q, head_dim]. weights: scratch of n_q * kKvPageTokens floats.
  void (*attend)(const float* q, int64_t n_q, const KeySegment& keys, int64_t head_dim,
                 float* weights, float* max, float* sum, float* vectors) noexcept;
  // Joins the partial of the next segment into a total, for n_q queries.
  void (*join)(float* total_max, float* total_sum, float* total_vectors, const float* max,
               const float* sum, const float* vectors, int64_t n_q, int64_t head_dim) noexcept;
  // vectors[i] /= sum[i]
  void (*finish)(float* vectors, const float* sum, int64_t n_q, int64_t head_dim) noexcept;

  // -- attention over int8 pages ------------------------------------------------------------------
  // n rows of `cols` floats (contiguous) to codes; what pads a row to 16 gets code 0.
  void (*round_rows)(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept;
  // n_q queries over one page: maximum score and sum of weights [n_q], and p = weight * scale of
  // the value as codes (stride kKvPageTokens), 0 where nothing is seen. next: what is read after
  // this page's K, or null.
  void (*weigh_codes)(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                      int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                      float* sum) noexcept;
  // Joins maximum and sum of the next segment into the totals (which begin as -infinity and 0), n
  // of them: old sums are worth `keep` of themselves from here on, the segment's `take`.
  void (*join_weights)(float* total_max, float* total_sum, const float* max, const float* sum,
                       int64_t n, float* keep, float* take) noexcept;
  // total = total * keep + take * sum of p * value, for n_q queries and n_dims elements of the head
  // from v (the first of a block of 16) on. Totals of a query are `stride` from the next one's.
  void (*join_values)(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                      const uint8_t* next, const float* keep, const float* take, float* totals,
                      int64_t stride) noexcept;

  // -- int4 pages (kv_pages.h), turned into int8 ones before they are read
  // ------------------------- A head's half bytes and blocks of a page, from one of its 32 elements
  // on, as K or V of an int8 page: n_dims (a multiple of 32) elements of all kKvPageTokens places.
  // next: what is unpacked after these half bytes, or null.
  void (*unpack_k4)(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims,
                    const uint8_t* next, uint8_t* k) noexcept;
  void (*unpack_v4)(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims,
                    const uint8_t* next, uint8_t* v) noexcept;

  // -- K/V elements (kv_pages.h) ------------------------------------------------------------------
  void (*to_f16)(const float* x, int64_t n, uint16_t* y) noexcept;
  void (*from_f16)(const uint16_t* x, int64_t n, float* y) noexcept;
  void (*to_i8)(const float* x, int64_t n, int8_t* codes, float* scale) noexcept;
};

}  // namespace carat::kernels
