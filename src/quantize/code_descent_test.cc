// Codes and scales under signed descent, for every type that has a grid.
#include "quantize/code_descent.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "quant/grid.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

using Bytes = std::vector<std::byte>;
using Floats = std::vector<float>;

constexpr int64_t kRows = 6, kColumns = 512;

std::vector<DType> types_with_grid() {
  std::vector<DType> types;
  for (const DTypeInfo& i : all_dtypes()) {
    if (quant::has_grid(i.dtype)) types.push_back(i.dtype);
  }
  return types;
}

Floats random_floats(uint64_t seed) {
  Rng rng(seed);
  Floats x(static_cast<size_t>(kRows * kColumns));
  for (float& v : x) v = static_cast<float>(0.05 * rng.normal());
  return x;
}

Bytes encoded(DType t, const Floats& x) {
  Bytes out(static_cast<size_t>(kRows * row_bytes(t, kColumns)));
  quant::encode_row(t, x.data(), out.data(), kRows * kColumns);
  return out;
}

Floats decoded(DType t, const Bytes& rows) {
  Floats x(static_cast<size_t>(kRows * kColumns));
  quant::decode_row(t, rows.data(), x.data(), kRows * kColumns);
  return x;
}

// Codes moved by one here and there, as feedback leaves them.
void move_codes(DType t, Bytes& rows) {
  Rng rng(9);
  const int64_t block = info(t).block_bytes;
  for (int64_t at = 0; at < static_cast<int64_t>(rows.size()); at += block) {
    quant::Grid grid;
    int8_t codes[quant::kSuperBlock];
    quant::read_grid(t, rows.data() + at, grid);
    quant::read_codes(t, rows.data() + at, codes);
    for (int e = 0; e < grid.elements; ++e) {
      const int moved = codes[e] + static_cast<int>(rng.below(3)) - 1;
      codes[e] = static_cast<int8_t>(std::clamp(moved, grid.lowest, grid.highest));
    }
    quant::write_codes(t, codes, rows.data() + at);
  }
}

TEST(CodeDescent, BeginsWithTheCodesThatItIsGiven) {
  ThreadPool pool(1);
  for (const DType t : types_with_grid()) {
    const Floats x = random_floats(1);
    Bytes rows = encoded(t, x);
    EXPECT_EQ(CodeDescent(t, kColumns, x, rows, 0.1f).encode(pool), rows) << name_of(t);
    move_codes(t, rows);
    EXPECT_EQ(CodeDescent(t, kColumns, x, rows, 0.1f).encode(pool), rows) << name_of(t);
  }
}

TEST(CodeDescent, ValuesAreWhatItsEncodingHoldsForAnyNumberOfThreads) {
  ThreadPool pool(1), three(3);
  for (const DType t : types_with_grid()) {
    const Floats x = random_floats(2);
    CodeDescent a(t, kColumns, x, encoded(t, x), 0.1f), b = a;
    Floats values(x.size());
    for (int step = 0; step < 8; ++step) {
      const Floats g = random_floats(10 + static_cast<uint64_t>(step));
      a.step(g, 0.2f, 0.01f, pool);
      b.step(g, 0.2f, 0.01f, three);
    }
    const Bytes rows = a.encode(pool);
    EXPECT_NE(rows, encoded(t, x)) << name_of(t);
    EXPECT_EQ(rows, b.encode(three)) << name_of(t);
    a.decode(values, pool);
    EXPECT_EQ(values, decoded(t, rows)) << name_of(t);
  }
}

// |(values - weights) X|^2 for a few directions X that all columns share, and its gradient.
class Outputs {
 public:
  explicit Outputs(const Floats& weights) : weights_(weights), x_(random_floats(5)) {}

  double lost(const Floats& values, Floats* gradients) const {
    double sum = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t k = 0; k < kRows; ++k) {
        double y = 0;
        for (int64_t c = 0; c < kColumns; ++c) {
          const auto i = static_cast<size_t>(r * kColumns + c);
          y += (double{values[i]} - weights_[i]) * x_[static_cast<size_t>(k * kColumns + c)];
        }
        sum += y * y;
        if (gradients == nullptr) continue;
        for (int64_t c = 0; c < kColumns; ++c) {
          (*gradients)[static_cast<size_t>(r * kColumns + c)] +=
              static_cast<float>(2 * y * x_[static_cast<size_t>(k * kColumns + c)]);
        }
      }
    }
    return sum;
  }

 private:
  const Floats& weights_;
  Floats x_;
};

TEST(CodeDescent, LosesMuchLessOfOutputsThanRounding) {
  ThreadPool pool(2);
  for (const DType t : types_with_grid()) {
    const Floats x = random_floats(4);
    const Outputs outputs(x);
    CodeDescent d(t, kColumns, x, encoded(t, x), 0.1f);
    const double first = outputs.lost(decoded(t, encoded(t, x)), nullptr);
    double best = first;
    constexpr int kSteps = 60;
    for (int step = 0; step < kSteps; ++step) {
      Floats values(x.size()), gradients(x.size());
      d.decode(values, pool);
      best = std::min(best, outputs.lost(values, &gradients));
      d.step(gradients, 0.02f * (kSteps - step) / kSteps, 0.0f, pool);
    }
    EXPECT_LT(best, 0.2 * first) << name_of(t);
  }
}

// Scales (of steps, or of offsets) that are too small leave weights outside the grid: it grows.
TEST(CodeDescent, GivesBlocksTheScalesThatTheirWeightsNeed) {
  ThreadPool pool(2);
  for (const DType t : types_with_grid()) {
    for (const bool offsets : {false, true}) {
      if (offsets && !quant::has_offsets(t)) continue;
      Bytes rows = encoded(t, random_floats(8));
      const Floats x = decoded(t, rows);
      const auto block = static_cast<size_t>(info(t).block_bytes);
      for (size_t at = 0; at < rows.size(); at += block) {
        quant::BlockScales s = quant::read_scales(t, rows.data() + at);
        (offsets ? s.m : s.d) *= 0.7f;
        quant::write_scales(t, s, rows.data() + at);
      }
      CodeDescent d(t, kColumns, x, rows, 0.5f);
      double first = 0, best = 0;
      for (int step = 0; step < 25; ++step) {
        Floats values(x.size());
        d.decode(values, pool);
        double lost = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          values[i] -= x[i];
          lost += double{values[i]} * values[i];
        }
        if (step == 0) first = best = lost;
        best = std::min(best, lost);
        d.step(values, 0.0f, 0.02f, pool);
        if (step > 0) continue;
        const Bytes now = d.encode(pool);
        int64_t grown = 0, shrunk = 0;
        for (size_t at = 0; at < rows.size(); at += block) {
          const quant::BlockScales was = quant::read_scales(t, rows.data() + at);
          const quant::BlockScales is = quant::read_scales(t, now.data() + at);
          const float a = std::fabs(offsets ? was.m : was.d), b = std::fabs(offsets ? is.m : is.d);
          grown += b > a;
          shrunk += b < a;
        }
        EXPECT_GT(grown, 4 * shrunk) << name_of(t) << (offsets ? " offsets" : " steps");
      }
      EXPECT_LT(best, 0.9 * first) << name_of(t) << (offsets ? " offsets" : " steps");
    }
  }
}

TEST(CodeDescent, WeightsMoveByOneCodeAtMost) {
  ThreadPool pool(1);
  for (const DType t : types_with_grid()) {
    const Floats x = random_floats(6);
    const Bytes rows = encoded(t, x);
    CodeDescent d(t, kColumns, x, rows, 0.1f);
    const Floats g = random_floats(7);
    for (int step = 0; step < 10; ++step) d.step(g, 1.0f, 0.0f, pool);
    const Bytes now = d.encode(pool);
    int64_t moved = 0;
    for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(info(t).block_bytes)) {
      int8_t before[quant::kSuperBlock], after[quant::kSuperBlock];
      quant::read_codes(t, rows.data() + at, before);
      quant::read_codes(t, now.data() + at, after);
      for (int e = 0; e < info(t).block_elements; ++e) {
        ASSERT_LE(std::abs(before[e] - after[e]), 1) << name_of(t);
        moved += before[e] != after[e];
      }
    }
    EXPECT_GT(moved, kRows * kColumns / 5) << name_of(t);
  }
}

}  // namespace
}  // namespace carat::quantize
