#include "model/random_codes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "model/random_tensor.h"
#include "quant/coded_rows.h"

namespace carat::model {
namespace {

TEST(RandomCodes, HaveTheSpreadOfTheParameter) {
  const Config config = config_of_size("tiny");
  const TensorRef t{TensorKind::kDown, 1};
  constexpr int64_t kRows = 256, kColumns = 1024;
  for (const DType dtype : {DType::kC2, DType::kC4, DType::kC8}) {
    RandomCodes random(config, t, dtype, 7);
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(dtype, kRows * kColumns)));
    random.next(bytes);
    double sum = 0, squares = 0;
    std::set<int> seen;
    for (int64_t r = 0; r < kRows; ++r) {
      const float scale = random.next_scale();
      EXPECT_GT(scale, 0);
      std::vector<int8_t> codes(kColumns);
      quant::unpack_codes(dtype, bytes.data() + r * row_bytes(dtype, kColumns), kColumns,
                          codes.data());
      for (const int8_t code : codes) {
        seen.insert(code);
        sum += code * scale;
        squares += static_cast<double>(code) * code * scale * scale;
      }
    }
    const double n = kRows * kColumns;
    const double deviation = random_spread(config, t).deviation;
    EXPECT_NEAR(std::sqrt(squares / n), deviation, 0.02 * deviation);
    EXPECT_NEAR(sum / n, 0, 0.01 * deviation);
    if (dtype == DType::kC2) EXPECT_EQ(seen, (std::set<int>{-2, -1, 0, 1}));
    if (dtype == DType::kC4) EXPECT_EQ(seen.size(), 16u);
    EXPECT_EQ(*seen.begin(), -(1 << (quant::code_bits(dtype) - 1)));
  }
}

TEST(RandomCodes, DoNotDependOnHowTheyAreAsked) {
  const Config config = config_of_size("tiny");
  const TensorRef t{TensorKind::kQ, 0};
  RandomCodes whole(config, t, DType::kC4, 1), parts(config, t, DType::kC4, 1);
  std::vector<std::byte> a(64), b(64);
  whole.next(a);
  (void)parts.next_scale();
  parts.next(std::span(b).first(32));
  parts.next(std::span(b).last(32));
  EXPECT_EQ(a, b);
  RandomCodes other(config, {TensorKind::kQ, 1}, DType::kC4, 1);
  other.next(b);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace carat::model
