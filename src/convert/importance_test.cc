#include "convert/importance.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "io/testing/temp_dir.h"
#include "quant/blocks.h"
#include "quant/q4_0.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int64_t kColumns = 64, kRows = 16;
constexpr int64_t kElements = kColumns * kRows;

std::string matrix_file(const io::testing::TempDir& folder) {
  io::ImatrixEntry one{"one", {}, {2}}, experts{"experts", {}, {1, 0}};
  for (int64_t i = 0; i < kColumns; ++i) one.sums.push_back(i % 8 == 0 ? 100.0f : 1.0f);
  for (int64_t i = 0; i < 2 * kColumns; ++i) experts.sums.push_back(static_cast<float>(i % 3));
  const std::string path = folder.file("m.gguf");
  io::write_imatrix(path, {{experts, one}, {}, 1, 2});
  return path;
}

double weighted_error(const std::vector<float>& x, const std::vector<float>& y,
                      const ColumnWeights& w) {
  double e = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    e += double{w.values[i % kColumns]} * (x[i] - y[i]) * (x[i] - y[i]);
  }
  return e;
}

TEST(Importance, GivesEachMatrixItsColumnsWithAMeanOfOne) {
  const io::testing::TempDir folder;
  const Importance importance(matrix_file(folder));
  const auto one = importance.weights_of("one", {kRows, kColumns});
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(one->matrices, 1);
  EXPECT_EQ(one->rows, kRows);
  EXPECT_FLOAT_EQ(one->values[0], 100 * one->values[1]);
  EXPECT_NEAR(one->values[0] + 7 * one->values[1], 8, 1e-5);
  const auto experts = importance.weights_of("experts", {2, kRows, kColumns});
  ASSERT_NE(experts, nullptr);
  EXPECT_EQ(experts->matrices, 2);
  EXPECT_GT(experts->values[0], 0);  // a column without input still counts a little
  EXPECT_LT(experts->values[0], 1e-4);
  EXPECT_EQ(experts->values[kColumns], 1);  // an expert without input weighs all alike
  EXPECT_EQ(importance.weights_of("none", {kRows, kColumns}), nullptr);
  EXPECT_THROW((void)importance.weights_of("one", {kRows, 32}), Error);
  EXPECT_THROW((void)importance.weights_of("experts", {3, kRows, kColumns}), Error);
}

// What both functions leave in a piece from the middle of a row.
TEST(EncodeWeighted, LosesLessOfWhatCountsAndKeepsTheLattice) {
  const io::testing::TempDir folder;
  SourceTensor tensor;
  tensor.dtype = DType::kF32;
  tensor.elements = kElements;
  tensor.columns = kColumns;
  tensor.column_weights = Importance(matrix_file(folder)).weights_of("one", {kRows, kColumns});
  Rng rng(4);
  std::vector<float> x(kElements), plain(kElements), fitted(kElements);
  for (float& v : x) v = static_cast<float>(0.02 * rng.normal());
  // The second half lies on the lattice.
  for (int64_t i = kElements / 2; i < kElements; i += quant::kBlock) {
    quant::decode_block_q4_0(quant::encode_block_q4_0(&x[static_cast<size_t>(i)]),
                             &x[static_cast<size_t>(i)]);
  }
  for (const DType to : {DType::kQ4_0, DType::kIQ4_NL, DType::kQ5_1}) {
    std::vector<std::byte> row(static_cast<size_t>(row_bytes(to, kElements)));
    quant::encode_row(to, x.data(), row.data(), kElements);
    quant::decode_row(to, row.data(), plain.data(), kElements);
    Findings found;
    const int64_t half = kColumns / 2 * 3;  // the second piece begins inside a row
    std::byte* const second = row.data() + row_bytes(to, half);
    encode_weighted(tensor, 0, x.data(), half, to, false, row.data(), found);
    encode_weighted(tensor, half, x.data() + half, kElements - half, to, false, second, found);
    quant::decode_row(to, row.data(), fitted.data(), kElements);
    EXPECT_LT(weighted_error(x, fitted, *tensor.column_weights),
              0.95 * weighted_error(x, plain, *tensor.column_weights));
    int64_t exact = 0;
    double squared = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      exact += fitted[i] == x[i];
      squared += double{fitted[i] - x[i]} * (fitted[i] - x[i]);
    }
    if (to != DType::kQ4_0) continue;
    for (size_t i = kElements / 2; i < kElements; ++i) ASSERT_EQ(fitted[i], x[i]) << i;
    EXPECT_EQ(found.weights_bit_exact, exact);
    EXPECT_EQ(found.lattice.blocks, kElements / quant::kBlock);
    EXPECT_NEAR(found.lattice.squared_error, squared, 1e-6 * squared);
    int64_t codes = 0;
    for (const int64_t n : found.lattice.codes) codes += n;
    EXPECT_EQ(codes, kElements);
  }
}

}  // namespace
}  // namespace carat::convert
