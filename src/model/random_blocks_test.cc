#include "model/random_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/scheme.h"

namespace carat::model {
namespace {

TEST(RandomBlocks, HaveTheMeanAndTheDeviationAskedFor) {
  for (const DTypeInfo& type : all_dtypes()) {
    if (type.block_elements == 1 || !type.computable) continue;
    constexpr int64_t kElements = 256 * 400;
    const auto block = static_cast<size_t>(type.block_bytes);
    Rng rng(5);
    std::vector<std::byte> row(static_cast<size_t>(row_bytes(type.dtype, kElements)));
    for (size_t at = 0; at < row.size(); at += block) {
      random_block(type.dtype, rng, 0.025f, row.data() + at);
    }
    std::vector<float> values(kElements);
    quant::decode_row(type.dtype, row.data(), values.data(), kElements);
    double sum = 0, squares = 0;
    for (const float v : values) {
      sum += v;
      squares += double{v} * v;
    }
    EXPECT_NEAR(sum / kElements, 0, 0.025 * 0.04) << type.name;
    EXPECT_NEAR(std::sqrt(squares / kElements), 0.025, 0.025 * 0.05) << type.name;
  }
}

}  // namespace
}  // namespace carat::model
