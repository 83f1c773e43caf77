#include "quant/coded_rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"

namespace carat::quant {
namespace {

constexpr DType kCodes[] = {DType::kC2, DType::kC4, DType::kC8};

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int v : values) out.push_back(static_cast<std::byte>(v));
  return out;
}

std::vector<int8_t> random_codes(DType dtype, int64_t n, uint64_t seed) {
  const int half = 1 << (code_bits(dtype) - 1);
  Rng rng(seed);
  std::vector<int8_t> codes(static_cast<size_t>(n));
  for (int8_t& c : codes) c = static_cast<int8_t>(static_cast<int>(rng.below(2 * half)) - half);
  return codes;
}

TEST(CodedRows, TypesAndBitsAgree) {
  for (const DType dtype : kCodes) {
    EXPECT_TRUE(is_coded(dtype));
    EXPECT_EQ(coded_dtype(code_bits(dtype)), dtype);
    EXPECT_EQ(row_bytes(dtype, 64), 64 * code_bits(dtype) / 8);
  }
  for (const DType dtype : {DType::kI8, DType::kU8, DType::kQ4_0, DType::kQ8_0}) {
    EXPECT_FALSE(is_coded(dtype)) << name_of(dtype);
  }
}

// Written by hand from the format: lowest bits are the lowest column, codes are biased.
TEST(CodedRows, BitsAreWhereTheFormatHasThem) {
  std::vector<int8_t> codes(4);
  unpack_codes(DType::kC2, bytes({0b11'10'01'00}).data(), 4, codes.data());
  EXPECT_EQ(codes, (std::vector<int8_t>{-2, -1, 0, 1}));
  unpack_codes(DType::kC4, bytes({0xf0, 0x87}).data(), 4, codes.data());
  EXPECT_EQ(codes, (std::vector<int8_t>{-8, 7, -1, 0}));
  unpack_codes(DType::kC8, bytes({0x00, 0x7f, 0x80, 0xff}).data(), 4, codes.data());
  EXPECT_EQ(codes, (std::vector<int8_t>{0, 127, -128, -1}));
}

// The same codes as the words of compressed-tensors: sum of (code + 8) << 4 j, little-endian.
TEST(CodedRows, WordsOfCompressedTensorsAreTheSameBytes) {
  for (const DType dtype : {DType::kC2, DType::kC4}) {
    const int bits = code_bits(dtype), per_word = 32 / bits;
    const std::vector<int8_t> codes = random_codes(dtype, 64, 5);
    std::vector<std::byte> row(static_cast<size_t>(row_bytes(dtype, 64)));
    pack_codes(dtype, codes.data(), 64, row.data());
    for (int w = 0; w < 64 / per_word; ++w) {
      uint32_t word = 0;
      for (int j = 0; j < per_word; ++j) {
        word |=
            static_cast<uint32_t>(codes[static_cast<size_t>(w * per_word + j)] + (1 << (bits - 1)))
            << (bits * j);
      }
      for (int b = 0; b < 4; ++b) {
        EXPECT_EQ(static_cast<uint32_t>(row[static_cast<size_t>(4 * w + b)]), word >> 8 * b & 255);
      }
    }
  }
}

TEST(CodedRows, PackingAndUnpackingAreInverse) {
  for (const DType dtype : kCodes) {
    const std::vector<int8_t> codes = random_codes(dtype, 512, 7);
    std::vector<std::byte> row(static_cast<size_t>(row_bytes(dtype, 512)), std::byte{0xa5});
    std::vector<int8_t> back(512);
    pack_codes(dtype, codes.data(), 512, row.data());
    unpack_codes(dtype, row.data(), 512, back.data());
    EXPECT_EQ(back, codes) << name_of(dtype);
  }
}

TEST(CodedRows, EachGroupOfColumnsHasItsScale) {
  const float scales[] = {0.5f, 0.0f, 3.0f, 0x1p-140f};
  for (const DType dtype : kCodes) {
    for (const int64_t columns : {64, 512, 1024}) {
      const int64_t n = 4 * columns;
      const std::vector<int8_t> codes = random_codes(dtype, n, 9);
      std::vector<std::byte> row(static_cast<size_t>(row_bytes(dtype, n)));
      pack_codes(dtype, codes.data(), n, row.data());
      std::vector<float> out(static_cast<size_t>(n));
      decode_coded_row(dtype, row.data(), scales, columns, n, out.data());
      for (int64_t i = 0; i < n; ++i) {
        ASSERT_EQ(out[static_cast<size_t>(i)],
                  static_cast<float>(codes[static_cast<size_t>(i)]) * scales[i / columns])
            << name_of(dtype) << " " << columns << " at " << i;
      }
    }
  }
}

TEST(StaticRounding, HalvesGoToTheEvenCode) {
  EXPECT_EQ(static_code(0.5f, 1.0f), 0);
  EXPECT_EQ(static_code(1.5f, 1.0f), 2);
  EXPECT_EQ(static_code(2.5f, 1.0f), 2);
  EXPECT_EQ(static_code(-0.5f, 1.0f), 0);
  EXPECT_EQ(static_code(-1.5f, 1.0f), -2);
  EXPECT_EQ(static_code(-2.5f, 1.0f), -2);
  EXPECT_EQ(static_code(0.25f, 0.5f), 0);
}

TEST(StaticRounding, ClampsAndIsDefinedForEveryInput) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(static_code(126.5f, 1.0f), 126);
  EXPECT_EQ(static_code(126.6f, 1.0f), 127);
  EXPECT_EQ(static_code(1e30f, 1e-30f), 127);
  EXPECT_EQ(static_code(kInf, 1.0f), 127);
  EXPECT_EQ(static_code(-127.5f, 1.0f), -128);
  EXPECT_EQ(static_code(-127.4f, 1.0f), -127);
  EXPECT_EQ(static_code(-kInf, 1.0f), -128);
  EXPECT_EQ(static_code(std::nanf(""), 1.0f), 0);
  EXPECT_EQ(static_code(0.0f, 1e-45f), 0);
}

// The quotient itself is what is rounded: multiplying by an inverse gives another code here.
TEST(StaticRounding, DividesInsteadOfMultiplying) {
  Rng rng(3);
  int differ = 0;
  for (int i = 0; i < 20000; ++i) {
    const float scale = static_cast<float>(0.01 + rng.uniform());
    const float x = (static_cast<float>(rng.below(200)) - 100.5f) * scale;
    const float code = std::nearbyint(x / scale);
    EXPECT_EQ(static_code(x, scale), static_cast<int>(code)) << x << " " << scale;
    differ += code != std::nearbyint(x * (1.0f / scale));
  }
  EXPECT_GT(differ, 0);
}

}  // namespace
}  // namespace carat::quant
