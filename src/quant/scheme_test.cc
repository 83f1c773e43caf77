#include "quant/scheme.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "quant/q4_0.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"

namespace carat::quant {
namespace {

std::vector<float> normals(uint64_t seed, int n, double scale) {
  Rng rng(seed);
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.normal() * scale);
  return x;
}

std::vector<std::byte> encode(DType t, const std::vector<float>& x) {
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(t, static_cast<int64_t>(x.size()))));
  encode_row(t, x.data(), row.data(), static_cast<int64_t>(x.size()));
  return row;
}

std::vector<float> decode(DType t, const std::vector<std::byte>& row, size_t n) {
  std::vector<float> out(n);
  decode_row(t, row.data(), out.data(), static_cast<int64_t>(n));
  return out;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double e = 0;
  for (size_t i = 0; i < a.size(); ++i) e += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return e;
}

double squared_norm(const std::vector<float>& a) {
  return squared_error(a, std::vector<float>(a.size(), 0.0f));
}

std::vector<DType> quantized_types() {
  std::vector<DType> types;
  for (const DTypeInfo& i : all_dtypes()) {
    if (i.block_elements > 1 && i.gguf_id >= 0) types.push_back(i.dtype);
  }
  return types;
}

TEST(Schemes, EveryBlockTypeHasOne) {
  for (DType t : quantized_types()) {
    EXPECT_TRUE(can_decode(t)) << name_of(t);
    EXPECT_TRUE(can_encode(t)) << name_of(t);
  }
}

TEST(Blocks, SizesAgreeWithTheTable) {
  for (const DTypeInfo& i : all_dtypes()) {
    if (!can_decode(i.dtype)) continue;
    // A row of one block decodes without touching a byte past it (the sanitizers watch).
    std::vector<std::byte> row(static_cast<size_t>(i.block_bytes));
    std::vector<float> out(static_cast<size_t>(i.block_elements), 7.0f);
    decode_row(i.dtype, row.data(), out.data(), i.block_elements);
    for (float v : out) EXPECT_TRUE(v == 0.0f || std::isfinite(v)) << i.name;
  }
}

TEST(Q4_0, BytesByHand) {
  std::vector<float> x(32, 0.0f);
  x[0] = -4.0f;   // extremum: d = 0.5, code 0
  x[1] = 1.0f;    // code 10
  x[16] = 3.5f;   // code 15
  x[31] = 0.25f;  // 0.5 + 8.5 truncates to 9
  const std::vector<std::byte> row = encode(DType::kQ4_0, x);
  EXPECT_EQ(row[0], std::byte{0x00});
  EXPECT_EQ(row[1], std::byte{0x38});  // 0.5 in binary16
  EXPECT_EQ(row[2], std::byte{0xf0});  // element 0 low, element 16 high
  EXPECT_EQ(row[3], std::byte{0x8a});
  EXPECT_EQ(row[17], std::byte{0x98});
  const std::vector<float> y = decode(DType::kQ4_0, row, 32);
  EXPECT_EQ(y[0], -4.0f);
  EXPECT_EQ(y[1], 1.0f);
  EXPECT_EQ(y[16], 3.5f);
  EXPECT_EQ(y[31], 0.5f);
  EXPECT_EQ(y[5], 0.0f);
}

TEST(Q4_0, FirstOfEqualMagnitudesGivesTheSign) {
  std::vector<float> x(32, 0.0f);
  x[3] = 8.0f;
  x[4] = -8.0f;
  const BlockQ4_0 block = encode_block_q4_0(x.data());
  EXPECT_EQ(to_float(block.d), -1.0f);
  EXPECT_EQ(code_of(block, 3), 0);
  EXPECT_EQ(code_of(block, 4), 15);  // 16.5 clamped
}

TEST(Q4_0, ItsOwnLatticeIsAFixedPoint) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> x = normals(seed, 32, 0.05);
    const auto once = encode(DType::kQ4_0, x);
    const auto twice = encode(DType::kQ4_0, decode(DType::kQ4_0, once, 32));
    EXPECT_EQ(once, twice) << seed;
  }
}

TEST(Q8_0, ErrorIsHalfAStepAndBytesByHand) {
  std::vector<float> x(32, 0.0f);
  x[0] = -127.0f;
  x[1] = 2.5f;
  x[2] = -2.5f;
  const BlockQ8_0 block = encode_block_q8_0(x.data());
  EXPECT_EQ(block.d.bits, 0x3c00);
  EXPECT_EQ(block.qs[0], -127);
  EXPECT_EQ(block.qs[1], 3);
  EXPECT_EQ(block.qs[2], -3);

  const std::vector<float> r = normals(1, 4096, 1.0);
  const std::vector<float> y = decode(DType::kQ8_0, encode(DType::kQ8_0, r), r.size());
  for (size_t b = 0; b < r.size(); b += 32) {
    float largest = 0;
    for (size_t i = b; i < b + 32; ++i) largest = std::max(largest, std::fabs(r[i]));
    for (size_t i = b; i < b + 32; ++i) {
      EXPECT_NEAR(r[i], y[i], largest / 127 * 0.5 + largest * 0x1p-11 + 1e-7) << i;
    }
  }
}

// The layout as the format page words it, written a second time.
TEST(Q6_K, DecodesByTheWordedLayout) {
  Rng rng(3);
  BlockQ6_K block;
  std::vector<uint8_t> noise(sizeof(block));
  for (uint8_t& v : noise) v = static_cast<uint8_t>(rng.next());
  std::memcpy(&block, noise.data(), sizeof(block));
  block.d = to_f16(0.0123f);
  float out[256];
  decode_block_q6_k(block, out);
  const float d = to_float(block.d);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* ql = block.ql + 64 * half;
    const uint8_t* qh = block.qh + 32 * half;
    const int8_t* sc = block.scales + 8 * half;
    for (int l = 0; l < 32; ++l) {
      const int e[4] = {(ql[l] & 15) | (qh[l] & 3) << 4, (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4,
                        ql[l] >> 4 | (qh[l] >> 4 & 3) << 4, ql[l + 32] >> 4 | (qh[l] >> 6) << 4};
      for (int k = 0; k < 4; ++k) {
        const float want =
            d * static_cast<float>(sc[2 * k + l / 16]) * static_cast<float>(e[k] - 32);
        EXPECT_EQ(out[128 * half + 32 * k + l], want);
      }
    }
  }
}

// Plain scale search: step = extremum / -32 per sub-block, scales in units of the largest / -128.
std::vector<float> plain_q6_k(const std::vector<float>& x) {
  std::vector<float> out(x.size());
  for (size_t base = 0; base < x.size(); base += 256) {
    float steps[16];
    float largest = 0;
    for (int b = 0; b < 16; ++b) {
      float extremum = 0;
      for (int i = 0; i < 16; ++i) {
        const float v = x[base + static_cast<size_t>(16 * b + i)];
        if (std::fabs(v) > std::fabs(extremum)) extremum = v;
      }
      steps[b] = extremum / -32;
      if (std::fabs(steps[b]) > std::fabs(largest)) largest = steps[b];
    }
    const float d = to_float(to_f16(largest / -128));
    for (int b = 0; b < 16; ++b) {
      const float s = d == 0 ? 0 : d * std::clamp(std::round(steps[b] / d), -128.0f, 127.0f);
      for (int i = 0; i < 16; ++i) {
        const size_t at = base + static_cast<size_t>(16 * b + i);
        out[at] = s == 0 ? 0 : s * std::clamp(std::round(x[at] / s), -32.0f, 31.0f);
      }
    }
  }
  return out;
}

TEST(Q6_K, IsNeverWorseThanThePlainRule) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::vector<float> x = normals(seed, 256, std::exp2(static_cast<double>(seed % 20) - 15));
    if (seed % 3 == 0) x[seed] *= 30;  // an outlier
    if (seed % 5 == 0) std::fill_n(x.begin() + 32, 48, 0.0f);
    const auto y = decode(DType::kQ6_K, encode(DType::kQ6_K, x), x.size());
    EXPECT_LE(squared_error(x, y), squared_error(x, plain_q6_k(x)) * (1 + 1e-5)) << seed;
  }
}

TEST(Q6_K, IsBetterThanThePlainRuleOnNormals) {
  const std::vector<float> x = normals(9, 256 * 200, 0.02);
  const auto y = decode(DType::kQ6_K, encode(DType::kQ6_K, x), x.size());
  const double ours = squared_error(x, y), plain = squared_error(x, plain_q6_k(x));
  EXPECT_LT(ours, 0.95 * plain);
  EXPECT_LT(std::sqrt(ours / squared_norm(x)), 0.018);
}

TEST(Q6_K, PackingRoundTrips) {
  const std::vector<float> x = normals(4, 256, 1.0);
  const BlockQ6_K block = encode_block_q6_k(x.data());
  float out[256];
  decode_block_q6_k(block, out);
  for (int e = 0; e < 256; ++e) {
    const float step = to_float(block.d) * static_cast<float>(block.scales[e / 16]);
    EXPECT_EQ(out[e], step * static_cast<float>(code_of(block, e) - 32));
  }
}

TEST(FloatRows, AreExactOrRoundToEven) {
  const std::vector<float> x = normals(5, 1000, 3.0);
  EXPECT_EQ(decode(DType::kF32, encode(DType::kF32, x), x.size()), x);
  const auto f16 = decode(DType::kF16, encode(DType::kF16, x), x.size());
  const auto bf16 = decode(DType::kBF16, encode(DType::kBF16, x), x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(f16[i], to_float(to_f16(x[i])));
    EXPECT_EQ(bf16[i], to_float(to_bf16(x[i])));
  }
}

TEST(Schemes, ZerosStayZero) {
  for (DType t : quantized_types()) {
    const std::vector<float> x(512, 0.0f);
    for (float v : decode(t, encode(t, x), x.size())) EXPECT_EQ(v, 0.0f) << name_of(t);
  }
}

TEST(Schemes, TinyValuesBecomeZeroWithoutNan) {
  for (DType t : quantized_types()) {
    std::vector<float> x(256, 1e-44f);
    x[3] = -3e-44f;
    x[9] = 0.0f;
    for (float v : decode(t, encode(t, x), x.size())) EXPECT_EQ(v, 0.0f) << name_of(t);
  }
}

std::string error_of(DType t, float value) {
  std::vector<float> x(256, 1.0f);
  x[77] = value;
  try {
    (void)encode(t, x);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Schemes, RefuseWhatTheyCannotHold) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (DType t : quantized_types()) {
    EXPECT_NE(error_of(t, nan).find("element 77"), std::string::npos) << name_of(t);
    EXPECT_NE(error_of(t, -inf).find("not finite"), std::string::npos) << name_of(t);
    EXPECT_NE(error_of(t, 3e38f).find("too large"), std::string::npos) << name_of(t);
  }
  EXPECT_NE(error_of(DType::kF16, 70000.0f).find("too large"), std::string::npos);
  EXPECT_EQ(error_of(DType::kF16, inf), "");
  EXPECT_EQ(error_of(DType::kBF16, nan), "");
  EXPECT_NE(error_of(DType::kI32, 1.0f).find("I32"), std::string::npos);
}

TEST(Schemes, LargestAllowedValuesStayFinite) {
  constexpr float kF16 = 65504.0f;
  const std::pair<DType, float> limits[] = {
      {DType::kQ4_0, 8 * kF16},        {DType::kQ4_1, kF16},
      {DType::kQ5_0, 16 * kF16},       {DType::kQ5_1, kF16},
      {DType::kQ8_0, 127 * kF16},      {DType::kIQ4_NL, 100 * kF16},
      {DType::kQ2_K, 14 * kF16},       {DType::kQ3_K, 93 * kF16},
      {DType::kQ4_K, 60 * kF16},       {DType::kQ5_K, 60 * kF16},
      {DType::kQ6_K, 24 * 127 * kF16}, {DType::kIQ4_XS, 100 * 31 * kF16},
      {DType::kMXFP4, 0x1.8p127f}};
  EXPECT_EQ(std::size(limits), quantized_types().size());
  for (const auto& [t, limit] : limits) {
    std::vector<float> x(256, 0.0f);
    x[0] = limit;
    x[1] = -limit;
    const std::vector<float> y = decode(t, encode(t, x), x.size());
    const float tolerance = t == DType::kQ2_K || t == DType::kQ3_K ? 0.2f : 0.07f;
    EXPECT_NEAR(y[0] / limit, 1.0f, tolerance) << name_of(t);
    EXPECT_NEAR(y[1] / limit, -1.0f, 0.26f) << name_of(t);  // a signed code has one less there
    for (float v : y) EXPECT_TRUE(std::isfinite(v)) << name_of(t);
    x[0] = std::nextafter(limit, 2 * limit);
    EXPECT_THROW((void)encode(t, x), Error) << name_of(t);
  }
}

// Root mean square error of normally distributed rows, relative to their size: the figures of
// docs/formats.md.
TEST(Schemes, LoseLittleOnNormals) {
  const std::pair<DType, double> bounds[] = {
      {DType::kQ4_0, 0.087},  {DType::kQ4_1, 0.079},  {DType::kQ5_0, 0.0435},
      {DType::kQ5_1, 0.0385}, {DType::kQ8_0, 0.0055}, {DType::kIQ4_NL, 0.075},
      {DType::kQ2_K, 0.265},  {DType::kQ3_K, 0.147},  {DType::kQ4_K, 0.0715},
      {DType::kQ5_K, 0.0355}, {DType::kQ6_K, 0.0176}, {DType::kIQ4_XS, 0.0755},
      {DType::kMXFP4, 0.115}};
  EXPECT_EQ(std::size(bounds), quantized_types().size());
  const std::vector<float> x = normals(11, 256 * 100, 0.02);
  for (const auto& [t, bound] : bounds) {
    const auto y = decode(t, encode(t, x), x.size());
    EXPECT_LT(std::sqrt(squared_error(x, y) / squared_norm(x)), bound) << name_of(t);
  }
}

// Rows of one sign, constant rows, outliers and zeros: nothing may be lost that the type can hold.
TEST(Schemes, HoldRowsOfUnusualShape) {
  for (DType t : quantized_types()) {
    const double normal_error = [&] {
      const std::vector<float> x = normals(12, 256, 1.0);
      return std::sqrt(squared_error(x, decode(t, encode(t, x), 256)) / squared_norm(x));
    }();
    for (float c : {0.5f, -0.5f}) {
      std::vector<float> x(256, c);
      auto y = decode(t, encode(t, x), x.size());
      EXPECT_LT(std::sqrt(squared_error(x, y) / squared_norm(x)), 0.04) << name_of(t) << c;
      x = normals(13, 256, 1.0);
      for (float& v : x) v = c * std::fabs(v);
      y = decode(t, encode(t, x), x.size());
      EXPECT_LT(std::sqrt(squared_error(x, y) / squared_norm(x)), 1.2 * normal_error)
          << name_of(t) << c;
    }
    std::vector<float> x(256, 0.0f);
    x[100] = -3.0f;
    const auto y = decode(t, encode(t, x), x.size());
    EXPECT_NEAR(y[100], -3.0f, 0.1f) << name_of(t);
    EXPECT_LT(squared_error(x, y), 0.01 * squared_norm(x)) << name_of(t);
  }
}

}  // namespace
}  // namespace carat::quant
