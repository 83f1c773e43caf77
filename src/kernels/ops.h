// What a device must be able to do: the calls from which the one forward pass (model/forward.cc) is
// written. Implementations: cpu/cpu_ops (inference), train/tape (records the same calls and runs
// them backwards).
//
// Values. A Value is a handle to a matrix [rows, cols], one row per token. No op changes a value it
// was given; each returns a new one whose memory the Ops owns. The CPU recycles the memory when the
// last handle goes; the tape keeps it until the backward pass. The element type is the
// implementation's secret (float for inference, float or double on the tape). A Value is used only
// with the Ops that made it and dies before it. Rows may be 0: every op then returns 0 rows.
//
// Threads. An Ops is used by one thread at a time; it spreads its own work.
//
// Canonical sums. On one ISA the result of a row is bit-identical whatever other rows share the
// call, whatever the number of threads and whether a fused or a simple op made it:
//   * dot product with a quantized matrix: the row of x is quantized to int8 per 32 elements (scale
//     dx = max|x| / 127, code = round half to even of x * (1 / dx); a block below 2^-100 is zero,
//     one with a value that is not finite makes the result NaN). Blocks of 32 in ascending order;
//     S is the exact integer sum of weight codes (their offset taken off) times activation codes, X
//     that of the activation codes, 0 and 1 the halves of 16; acc starts at 0:
//       Q4_0, Q5_0, Q8_0, IQ4_NL  acc = fma(d * dx, S, acc)
//       Q6_K, Q3_K                acc = fma(d * dx, sc0 * S0 + sc1 * S1, acc), the sum in integers
//       IQ4_XS                    acc = fma((d * sc) * dx, S, acc)
//       Q4_1, Q5_1                acc = fma(d * dx, S, acc), then acc = fma(m, dx * X, acc)
//       Q4_K, Q5_K                the same with d * sc for d and -(dmin * mn) for m
//       Q2_K                      acc = fma(d * dx, sc0 * S0 + sc1 * S1, acc), then
//                                 acc = fma(-(dmin * dx), mn0 * X0 + mn1 * X1, acc)
//       C2, C4, C8                acc = fma(dx, S, acc); in the end acc * scale of the row
//   * static activations (Weight::input_scale = dx > 0, matrices of C2, C4, C8 only): code = clamp(
//     round half to even(x / dx), -128, 127), a NaN makes the row's results NaN; y = float(S of the
//     whole row) * (scale of the weight's row * dx), S an exact integer;
//   * Weight::output_scale = s > 0: y becomes clamp(round half to even(y / s), -128, 127) * s;
//   * dot product of floats (F32, F16, BF16): 8 lanes, element i goes to lane i mod 8 by fused
//     multiply-add in ascending order, then lanes are added as ((0+4)+(2+6))+((1+5)+(3+7));
//     a tail shorter than 8 is treated as padded with zeros;
//   * sum of squares in rms_norm: the same 8 lanes and tree;
//   * exp and tanh: the polynomials of kernels/scalar/math.h;
//   * attention: keys in segments of kKvPageTokens positions counted from position 0; inside a
//     segment the float dot above, the maximum, weights = exp(score - maximum) summed in 8 lanes by
//     place in the segment, weight times value added in ascending position; partial results
//     (maximum, sum, vector) joined in ascending segment order. With int8 pages sums are exact
//     integers: a head of q is rounded to 16 bits (dq = max|q| / 16383, code = round half to even
//     of q * (1 / dq); zero and NaN as above), score = float(sum of q's and k's codes) * (dq *
//     scale of k); the weights of a segment times the scales of their values, p, are rounded the
//     same way (dp = max p / 16383), vector = float(sum of p's and v's codes) * dp. int4 pages
//     are read as the int8 pages whose codes they hold; with int4r q, k and v are rotated first
//     and the result is turned back (kv_rotation.h);
//   * experts: added in router rank order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kv_pages.h"
#include "kernels/weight.h"

namespace carat::kernels {

// Base of what a Value points to; implementations derive from it.
struct ValueBase {
  int64_t rows = 0;
  int64_t cols = 0;
  virtual ~ValueBase() = default;
};
using Value = std::shared_ptr<ValueBase>;

// Rotary position embedding of one kind of layer. Pair i is (element i, element i + head_dim/2) and
// turns by position * inverse_frequency[i] (computed in float; 0 leaves the pair alone).
struct Rope {
  int64_t head_dim = 0;
  std::vector<float> inverse_frequency;  // [head_dim / 2]
};

struct AttentionCall {
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t window = 0;    // keys in (position - window, position] are visible; 0: all up to it
  int32_t kv_layer = 0;  // layer that owns K and V; the tape adds gradients of sharers there
  // Static rounding of what is stored (0: none): x becomes clamp(round half to even(x / scale),
  // -128, 127) * scale, in pages of every type but int4; an int8 page holds just these codes.
  float k_scale = 0, v_scale = 0;
  std::span<const RowRef> q_rows;      // one per row of q
  std::span<const RowRef> kv_rows;     // one per row of k and v, positions ascending per sequence
  std::span<const KvLayer> sequences;  // the owner's pages, indexed by RowRef::sequence; the tape
                                       // ignores them
};

// Which experts each row goes to, best first, and with what weight.
struct Route {
  Value weights;                                    // [n, top_k]
  std::shared_ptr<const std::vector<int32_t>> ids;  // [n, top_k] row-major, in rank order
};

class Ops {
 public:
  virtual ~Ops() = default;

  // -- in and out ------------------------------------------------------------------------------

  // A value from host floats, row-major.
  virtual Value input(int64_t rows, int64_t cols, std::span<const float> values) = 0;
  // Copies a value to host floats. REQUIRES: out.size() == rows * cols.
  virtual void read(const Value& x, std::span<float> out) = 0;

  // -- rows --------------------------------------------------------------------------------------

  // Row t = columns [col_begin, col_begin + cols) of table row ids[t], times scale.
  // REQUIRES: every id in [0, table.rows); col_begin and cols whole blocks of the table's type.
  virtual Value embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin,
                      int64_t cols, float scale) = 0;
  // Row i = row rows[i] of x.
  virtual Value take_rows(const Value& x, std::span<const int32_t> rows) = 0;

  // -- arithmetic --------------------------------------------------------------------------------

  // y[t, o] = sum_i x[t, i] * w[o, i]
  virtual Value linear(const Value& x, const Weight& w) = 0;
  // Each group of `group` columns g: g * (mean(g^2) + eps)^(-1/2), times w[0..group) if w is given.
  virtual Value rms_norm(const Value& x, const Weight* w, int64_t group, float eps) = 0;
  // Rotates every head (cols / rope.head_dim of them) of row t to rows[t].position.
  virtual Value rope(const Value& x, const Rope& rope, std::span<const RowRef> rows) = 0;
  virtual Value add(const Value& a, const Value& b) = 0;
  virtual Value scale(const Value& x, float factor) = 0;
  virtual Value scale_by(const Value& x, const Weight& scalar) = 0;  // scalar: one element
  // gelu(gate) * up with gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
  virtual Value geglu(const Value& gate, const Value& up) = 0;
  // cap * tanh(x / cap)
  virtual Value softcap(const Value& x, float cap) = 0;

  // Stores k and v (null together for a layer that shares the cache of call.kv_layer) at their
  // rows, then softmax(q k^T) v over the visible keys, no scaling: query head j reads K/V head
  // j / (n_heads / n_kv_heads). q may have fewer rows than k, none included.
  // q [n, n_heads * head_dim], k, v [m, n_kv_heads * head_dim] -> [n, n_heads * head_dim].
  virtual Value attention(const Value& q, const Value& k, const Value& v,
                          const AttentionCall& call) = 0;

  // -- mixture of experts ------------------------------------------------------------------------

  // p = softmax(logits) over all experts; the top_k largest (lower index first on ties), divided by
  // their sum, each times expert_scale[its expert].
  virtual Route route(const Value& logits, const Weight& expert_scale, int64_t top_k) = 0;
  // Sum over ranks r of weights[t, r] * down_e(geglu(gate_e x, up_e x)), e = ids[t, r];
  // gate_up [n_experts][2 * ffn, dim] (gate rows first), down [n_experts][dim, ffn].
  virtual Value experts(const Value& x, const Route& route, const Weight& gate_up,
                        const Weight& down) = 0;

  // -- fused, with defaults made of the above ----------------------------------------------------

  // x + rms_norm(y; w)
  virtual Value add_norm(const Value& x, const Value& y, const Weight& w, float eps) {
    return add(x, rms_norm(y, &w, y->cols, eps));
  }
  // geglu(gate x, up x)
  virtual Value gated(const Value& x, const Weight& gate, const Weight& up) {
    return geglu(linear(x, gate), linear(x, up));
  }
};

}  // namespace carat::kernels
