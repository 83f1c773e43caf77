// The AVX2 + FMA + F16C kernels: one strong function per kernel, each from a leaf file compiled
// with those flags. Nothing in these files may define a weak symbol, which the linker could hand to
// portable code.
#pragma once

#include "kernels/cpu/table.h"

namespace carat::kernels::avx2 {

// Null where the compiler does not target x86-64.
#if defined(__x86_64__)
extern const KernelTable kKernels;
constexpr const KernelTable* kTable = &kKernels;
#else
constexpr const KernelTable* kTable = nullptr;
#endif

void quantize_rows(const float* rows, const QuantizedRows& x) noexcept;
float static_codes(const float* x, int64_t n, float scale, int8_t* codes, int32_t* sum) noexcept;
void static_round(const float* x, int64_t n, float scale, float* y) noexcept;
void linear_f32(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_f16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                float* scratch) noexcept;
void linear_bf16(const WeightRows& w, const FloatRows& x, const LinearOutput& y,
                 float* scratch) noexcept;

void rms_norm(const float* x, const float* w, int64_t n_groups, int64_t group, float eps,
              float* y) noexcept;
void add_rms_norm(const float* x, const float* y, const float* w, int64_t n, int64_t cols,
                  float eps, float* out) noexcept;
void rope(const float* x, const float* cos, const float* sin, int64_t n_pairs, int64_t n_heads,
          int64_t head_dim, float* y) noexcept;
void add(const float* a, const float* b, int64_t n, float* y) noexcept;
void scale(const float* x, int64_t n, float factor, float* y) noexcept;
void multiply_add(const float* x, int64_t n, float factor, float* y) noexcept;
void geglu(const float* gate, const float* up, int64_t n, float* y) noexcept;
void softcap(const float* x, int64_t n, float cap, float* y) noexcept;

void attend(const float* q, int64_t n_q, const KeySegment& keys, int64_t head_dim, float* weights,
            float* max, float* sum, float* vectors) noexcept;
void join(float* total_max, float* total_sum, float* total_vectors, const float* max,
          const float* sum, const float* vectors, int64_t n_q, int64_t head_dim) noexcept;
void finish(float* vectors, const float* sum, int64_t n_q, int64_t head_dim) noexcept;
void round_rows(const float* rows, int64_t n, int64_t cols, const CodeRows& out) noexcept;
void weigh_codes(const CodeRows& q, int64_t n_q, const CodePage& page, const Places* seen,
                 int64_t head_dim, const uint8_t* next, const CodeRows& p, float* max,
                 float* sum) noexcept;
void join_weights(float* total_max, float* total_sum, const float* max, const float* sum, int64_t n,
                  float* keep, float* take) noexcept;
void join_values(const CodeRows& p, int64_t n_q, const uint8_t* v, int64_t n_dims,
                 const uint8_t* next, const float* keep, const float* take, float* totals,
                 int64_t stride) noexcept;
void unpack_k4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t* next,
               uint8_t* k) noexcept;
void unpack_v4(const uint8_t* codes, const uint8_t* blocks, int64_t n_dims, const uint8_t* next,
               uint8_t* v) noexcept;
void to_f16(const float* x, int64_t n, uint16_t* y) noexcept;
void from_f16(const uint16_t* x, int64_t n, float* y) noexcept;
void to_i8(const float* x, int64_t n, int8_t* codes, float* scale) noexcept;

}  // namespace carat::kernels::avx2
