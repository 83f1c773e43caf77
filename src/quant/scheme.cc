#include "quant/scheme.h"

#include <cmath>
#include <string>

#include "base/error.h"
#include "quant/codes.h"
#include "quant/float_rows.h"
#include "quant/iq4_nl.h"
#include "quant/iq4_xs.h"
#include "quant/mxfp4.h"
#include "quant/q2_k.h"
#include "quant/q3_k.h"
#include "quant/q4_0.h"
#include "quant/q4_1.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q5_1.h"
#include "quant/q5_k.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"

namespace carat::quant {
namespace {

struct Scheme {
  DType dtype;
  void (*decode)(const std::byte*, float*, int64_t) noexcept;
  void (*encode)(const float*, const float*, std::byte*, int64_t) noexcept;
  float limit;  // largest magnitude whose scale cannot overflow; 0: no limit
  bool finite;  // encode takes finite values only
};

constexpr Scheme kSchemes[] = {
    {DType::kF32, decode_f32, encode_f32, 0.0f, false},
    {DType::kF16, decode_f16, encode_f16, kLargestF16, false},
    {DType::kBF16, decode_bf16, encode_bf16, 0.0f, false},
    {DType::kQ4_0, decode_q4_0, encode_q4_0, 8.0f * kLargestF16, true},
    {DType::kQ8_0, decode_q8_0, encode_q8_0, 127.0f * kLargestF16, true},
    {DType::kQ4_1, decode_q4_1, encode_q4_1, kLargestF16, true},
    {DType::kQ5_0, decode_q5_0, encode_q5_0, 16.0f * kLargestF16, true},
    {DType::kQ5_1, decode_q5_1, encode_q5_1, kLargestF16, true},
    {DType::kIQ4_NL, decode_iq4_nl, encode_iq4_nl, 100.0f * kLargestF16, true},
    {DType::kQ2_K, decode_q2_k, encode_q2_k, 14.0f * kLargestF16, true},
    {DType::kQ3_K, decode_q3_k, encode_q3_k, 3.0f * 31.0f * kLargestF16, true},
    {DType::kQ4_K, decode_q4_k, encode_q4_k, 60.0f * kLargestF16, true},
    {DType::kQ5_K, decode_q5_k, encode_q5_k, 60.0f * kLargestF16, true},
    {DType::kQ6_K, decode_q6_k, encode_q6_k, 24.0f * 127.0f * kLargestF16, true},
    {DType::kIQ4_XS, decode_iq4_xs, encode_iq4_xs, 100.0f * 31.0f * kLargestF16, true},
    {DType::kMXFP4, decode_mxfp4, encode_mxfp4, kLargestMxfp4, true},
};

const Scheme* find_scheme(DType dtype) noexcept {
  for (const Scheme& s : kSchemes) {
    if (s.dtype == dtype) return &s;
  }
  return nullptr;
}

[[noreturn]] void fail_value(const Scheme& scheme, int64_t i, float value) {
  const bool finite = std::isfinite(value);
  throw Error({finite ? "a value is too large for the type" : "a value is not finite",
               {},
               "element " + std::to_string(i),
               finite ? "at most " + std::to_string(scheme.limit) + " in magnitude for " +
                            name_of(scheme.dtype)
                      : std::string("finite values for ") + name_of(scheme.dtype),
               std::to_string(value),
               {}});
}

void check_values(const Scheme& scheme, const float* values, int64_t n) {
  if (scheme.limit == 0.0f) return;
  for (int64_t i = 0; i < n; ++i) {
    const float v = values[i];
    if (std::fabs(v) <= scheme.limit) continue;
    if (scheme.finite || std::isfinite(v)) fail_value(scheme, i, v);
  }
}

}  // namespace

bool can_decode(DType dtype) noexcept {
  const Scheme* s = find_scheme(dtype);
  return s && s->decode;
}

bool can_encode(DType dtype) noexcept {
  const Scheme* s = find_scheme(dtype);
  return s && s->encode;
}

void decode_row(DType dtype, const std::byte* row, float* out, int64_t n) {
  const Scheme* s = find_scheme(dtype);
  if (!s || !s->decode) {
    throw Error(std::string("values of type ") + name_of(dtype) + " cannot be decoded here");
  }
  CHECK(n >= 0 && n % info(dtype).block_elements == 0);
  s->decode(row, out, n);
}

void encode_row(DType dtype, const float* values, std::byte* row, int64_t n, const float* weights) {
  const Scheme* s = find_scheme(dtype);
  if (!s || !s->encode) {
    throw Error(std::string("values cannot be encoded as ") + name_of(dtype) + " here");
  }
  CHECK(n >= 0 && n % info(dtype).block_elements == 0);
  check_values(*s, values, n);
  s->encode(values, weights, row, n);
}

}  // namespace carat::quant
