// Scales under Adam, for every type that has a grid.
#include "quantize/scale_descent.h"

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

constexpr int64_t kElements = 4096;

Bytes random_rows(DType t) {
  Rng rng(3);
  Floats x(kElements);
  for (float& v : x) v = static_cast<float>(0.05 * rng.normal());
  Bytes out(static_cast<size_t>(row_bytes(t, kElements)));
  quant::encode_row(t, x.data(), out.data(), kElements);
  return out;
}

Floats decoded(DType t, const Bytes& rows) {
  Floats x(kElements);
  quant::decode_row(t, rows.data(), x.data(), kElements);
  return x;
}

// Multiplies the scales of every block with known factors.
void disturb(DType t, Bytes& rows) {
  Rng rng(4);
  for (size_t at = 0; at < rows.size(); at += static_cast<size_t>(info(t).block_bytes)) {
    quant::BlockScales s = quant::read_scales(t, rows.data() + at);
    s.d *= static_cast<float>(1 + 0.1 * (2 * rng.uniform() - 1));
    s.m *= static_cast<float>(1 + 0.1 * (2 * rng.uniform() - 1));
    quant::write_scales(t, s, rows.data() + at);
  }
}

double distance(const Floats& a, const Floats& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
  return sum;
}

TEST(ScaleDescent, FindsScalesBackAndLeavesCodes) {
  ThreadPool pool(1), three(3);
  for (const DTypeInfo& type : all_dtypes()) {
    const DType t = type.dtype;
    if (!quant::has_grid(t)) continue;
    const Bytes wanted = random_rows(t);
    const Floats target = decoded(t, wanted);
    Bytes disturbed = wanted;
    disturb(t, disturbed);
    ScaleDescent one(t, disturbed), many(t, disturbed);
    EXPECT_EQ(one.encode(pool), disturbed) << type.name;
    constexpr int kSteps = 150;
    for (int step = 1; step <= kSteps; ++step) {
      Floats values(kElements), gradients(kElements);
      one.decode(values, pool);
      for (size_t i = 0; i < values.size(); ++i) gradients[i] = values[i] - target[i];
      const double rate = 0.01 * (kSteps - step) / kSteps;
      one.step(gradients, step, rate, pool);
      many.step(gradients, step, rate, three);
    }
    const Bytes found = one.encode(pool);
    EXPECT_EQ(found, many.encode(three)) << type.name;
    Floats values(kElements);
    one.decode(values, pool);
    EXPECT_EQ(values, decoded(t, found)) << type.name;
    EXPECT_LT(distance(values, target), 1e-3 * distance(decoded(t, disturbed), target))
        << type.name;
    for (size_t at = 0; at < found.size(); at += static_cast<size_t>(type.block_bytes)) {
      // With the scales of the start put back, nothing differs.
      Bytes block(found.begin() + static_cast<int64_t>(at),
                  found.begin() + static_cast<int64_t>(at) + type.block_bytes);
      quant::write_scales(t, quant::read_scales(t, wanted.data() + at), block.data());
      ASSERT_TRUE(std::equal(block.begin(), block.end(), wanted.data() + at)) << type.name;
    }
  }
}

}  // namespace
}  // namespace carat::quantize
