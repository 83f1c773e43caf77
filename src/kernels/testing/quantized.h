// Quantized activations with their memory, for tests.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/table.h"

namespace carat::kernels::test {

struct Quantized {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  std::vector<int16_t> half_sums;
  std::vector<float> scaled_sums;
  QuantizedRows rows;

  Quantized(int64_t n, int64_t cols)
      : codes(static_cast<size_t>(n * cols), 99),
        scales(static_cast<size_t>(n * cols / 32)),
        sums(static_cast<size_t>(n * cols / 32)),
        half_sums(static_cast<size_t>(n * cols / 16)),
        scaled_sums(static_cast<size_t>(n * cols / 32)) {
    rows.n = n;
    rows.cols = cols;
    rows.codes = codes.data();
    rows.scales = scales.data();
    rows.sums = sums.data();
    rows.half_sums = half_sums.data();
    rows.scaled_sums = scaled_sums.data();
  }
  Quantized(const Quantized&) = delete;
  Quantized& operator=(const Quantized&) = delete;

  // Every code the same, with the sums that go with it: how products reach their extremes.
  void fill(int8_t code, float scale) {
    std::fill(codes.begin(), codes.end(), code);
    std::fill(scales.begin(), scales.end(), scale);
    std::fill(sums.begin(), sums.end(), 8 * 32 * code);
    std::fill(half_sums.begin(), half_sums.end(), static_cast<int16_t>(16 * code));
    std::fill(scaled_sums.begin(), scaled_sums.end(), scale * static_cast<float>(32 * code));
  }
};

// Static codes with their memory.
struct StaticCodes {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  StaticRows rows;

  StaticCodes(int64_t n, int64_t cols, float scale)
      : codes(static_cast<size_t>(n * cols)),
        scales(static_cast<size_t>(n), scale),
        sums(static_cast<size_t>(n)),
        rows{n, cols, codes.data(), scales.data(), sums.data()} {}
  StaticCodes(const StaticCodes&) = delete;
  StaticCodes& operator=(const StaticCodes&) = delete;

  // The sums that go with the codes.
  void add_up() {
    for (size_t i = 0; i < codes.size(); ++i) {
      int32_t& sum = sums[i / static_cast<size_t>(rows.cols)];
      sum = (i % static_cast<size_t>(rows.cols) == 0 ? 0 : sum) + codes[i];
    }
  }
};

}  // namespace carat::kernels::test
