#include "kernels/cpu/generic/table.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/half.h"
#include "kernels/scalar/activation.h"
#include "kernels/scalar/attention.h"
#include "kernels/scalar/kv4.h"
#include "kernels/scalar/rms_norm.h"
#include "kernels/scalar/rope.h"
#include "kernels/scalar/static_round.h"

namespace carat::kernels::generic {
namespace {

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept {
  for (int64_t g = 0; g < n_groups; ++g) {
    scalar::rms_norm(x + g * group, w, group, eps, y + g * group);
  }
}

void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept {
  for (int64_t t = 0; t < n; ++t) {
    const float r = scalar::rms_factor(y + t * cols, cols, eps);
    for (int64_t i = t * cols; i < (t + 1) * cols; ++i)
      out[i] = x[i] + (y[i] * r) * w[i - t * cols];
  }
}

void rope(const float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t n_heads,
          int64_t head_dim, float* y) noexcept {
  for (int64_t h = 0; h < n_heads; ++h) {
    scalar::rope_head(x + h * head_dim, cos, sin, n_pairs, head_dim, y + h * head_dim);
  }
}

void add(const float* a, const float* b, int64_t n, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] + b[i];
}

void scale(const float* x, int64_t n, float factor, float* y) noexcept {
  scalar::scale(x, n, factor, y);
}

void multiply_add(const float* x, int64_t n, float factor, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = std::fma(factor, x[i], y[i]);
}

void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept {
  scalar::geglu(gate, up, n, y);
}

void softcap(const float* x, int64_t n, float cap, float* y) noexcept {
  scalar::softcap(x, n, cap, y);
}

void attend(const float* q, int64_t n_q, const KeySegment& keys, int64_t head_dim, float* weights,
            float* max, float* sum, float* vectors) noexcept {
  const scalar::Segment<float> segment{
      .k = keys.k, .v = keys.v, .stride = head_dim, .first = keys.first, .n = keys.n};
  for (int64_t i = 0; i < n_q; ++i) {
    const scalar::Partial<float> p = scalar::attend_segment(q + i * head_dim, segment, head_dim,
                                                            weights, vectors + i * head_dim);
    max[i] = p.max;
    sum[i] = p.sum;
  }
}

void join(float* total_max, float* total_sum, float* total_vectors, const float* max,
          const float* sum, const float* vectors, int64_t n_q, int64_t head_dim) noexcept {
  for (int64_t i = 0; i < n_q; ++i) {
    scalar::Partial<float> total{total_max[i], total_sum[i]};
    const scalar::Partial<float> next{max[i], sum[i]};
    scalar::join_partial(total, total_vectors + i * head_dim, next, vectors + i * head_dim,
                         head_dim);
    total_max[i] = total.max;
    total_sum[i] = total.sum;
  }
}

void finish(float* vectors, const float* sum, int64_t n_q, int64_t head_dim) noexcept {
  for (int64_t i = 0; i < n_q * head_dim; ++i) vectors[i] = vectors[i] / sum[i / head_dim];
}

void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    int16_t* codes = out.codes + i * out.stride;
    out.scales[i] = scalar::round_codes(rows + i * cols, cols, codes);
    std::fill(codes + cols, codes + round_up(cols, 16), int16_t{0});
    int32_t sum = 0;
    for (int64_t j = 0; j < cols; ++j) sum += codes[j];
    out.sums[i] = 128 * sum;
  }
}

void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t*, const CodeRows& p, float* max,
                 float* sum) noexcept {
  for (int64_t i = 0; i < n_q; ++i) {
    const scalar::CodeSegment segment{page.k,       page.v,        page.k_scale,
                                      page.v_scale, seen[i].begin, seen[i].end};
    const scalar::Partial<float> partial =
        scalar::weigh_codes(q.codes + i * q.stride, q.scales[i], segment, head_dim,
                            p.codes + i * p.stride, p.scales + i);
    max[i] = partial.max;
    sum[i] = partial.sum;
  }
}

void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    const float most = max[i] > total_max[i] ? max[i] : total_max[i];
    keep[i] = scalar::exp_of(total_max[i] - most);
    take[i] = scalar::exp_of(max[i] - most);
    total_max[i] = most;
    total_sum[i] = std::fma(sum[i], take[i], total_sum[i] * keep[i]);
  }
}

void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims, const uint8_t*,
                 const float* keep, const float* take, float* totals, int64_t stride) noexcept {
  float vector[16];
  for (int64_t d = 0; d < n_dims; d += 16) {
    const int64_t n = std::min<int64_t>(16, n_dims - d);
    for (int64_t i = 0; i < n_q; ++i) {
      scalar::add_code_values(p.codes + i * p.stride, p.scales[i], v + v_code_at(d, 0), n, vector);
      float* total = totals + i * stride + d;
      for (int64_t j = 0; j < n; ++j) {
        total[j] = std::fma(vector[j], take[i], total[j] * keep[i]);
      }
    }
  }
}

float static_codes(const float* x, int64_t n, float scale, int8_t* codes, int32_t* sum) noexcept {
  *sum = 0;
  const float s = scalar::static_codes(x, n, scale, codes);
  for (int64_t i = 0; i < n; ++i) *sum += codes[i];
  return s;
}

void static_round(const float* x, int64_t n, float scale, float* y) noexcept {
  scalar::static_round(x, n, scale, y);
}

void unpack_k4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t*,
               uint8_t* k) noexcept {
  scalar::unpack_k4(codes, blocks, n_dims, k);
}

void unpack_v4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t*,
               uint8_t* v) noexcept {
  scalar::unpack_v4(codes, blocks, n_dims, v);
}

void to_f16(const float* x, int64_t n, uint16_t* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = carat::to_f16(x[i]).bits;
}

void from_f16(const uint16_t* x, int64_t n, float* y) noexcept {
  for (int64_t i = 0; i < n; ++i) y[i] = to_float(F16{x[i]});
}

void to_i8(const float* x, int64_t n, int8_t* codes, float* scale_out) noexcept {
  *scale_out = quantize(x, n, codes);
}

}  // namespace

const KernelTable kTable = {
    .isa = "generic",
    .quantize_rows = quantize_rows,
    .static_codes = static_codes,
    .static_round = static_round,
    .linear_tiles = kLinearTiles,
    .linear_channel = kLinearChannel,
    .linear_f32 = linear_f32,
    .linear_f16 = linear_f16,
    .linear_bf16 = linear_bf16,
    .rms_norm = rms_norm,
    .add_rms_norm = add_rms_norm,
    .rope = rope,
    .add = add,
    .scale = scale,
    .multiply_add = multiply_add,
    .geglu = geglu,
    .softcap = softcap,
    .attend = attend,
    .join = join,
    .finish = finish,
    .round_rows = round_rows,
    .weigh_codes = weigh_codes,
    .join_weights = join_weights,
    .join_values = join_values,
    .unpack_k4 = unpack_k4,
    .unpack_v4 = unpack_v4,
    .to_f16 = to_f16,
    .from_f16 = from_f16,
    .to_i8 = to_i8,
};

}  // namespace carat::kernels::generic
