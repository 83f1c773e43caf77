#include "kernels/cpu/sgemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace carat::kernels {
namespace {

struct Case {
  int64_t m, n, k;
  bool transpose_a, transpose_b;
  float alpha, beta;
};

std::vector<float> random_floats(int64_t n, Rng& rng) {
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = static_cast<float>(rng.uniform() * 2 - 1);
  return v;
}

TEST(Sgemm, AgreesWithTheDefinitionOnEveryIsa) {
  const Case cases[] = {{1, 1, 1, false, false, 1, 0},       {7, 5, 3, false, true, 2, 0},
                        {13, 37, 11, true, false, 1, 1},     {64, 96, 32, false, true, 1, 0.5f},
                        {65, 33, 400, true, false, 0.5f, 1}, {70, 31, 385, false, false, 1, 0},
                        {9, 1100, 20, false, true, 1, 0},    {50, 40, 800, true, true, 1, -1},
                        {128, 64, 0, false, false, 1, 2}};
  ThreadPool pool(3);
  for (const Case& c : cases) {
    Rng rng(static_cast<uint64_t>(c.m * 1000 + c.n));
    // Rows are stored further apart than they are long.
    const int64_t lda = (c.transpose_a ? c.m : c.k) + 3, ldb = (c.transpose_b ? c.k : c.n) + 2;
    const int64_t ldc = c.n + 1;
    const auto a = random_floats((c.transpose_a ? c.k : c.m) * lda + 1, rng);
    const auto b = random_floats((c.transpose_b ? c.n : c.k) * ldb + 1, rng);
    const auto start = random_floats(c.m * ldc, rng);
    for (SgemmIsa isa : {SgemmIsa::kGeneric, SgemmIsa::kAvx2, SgemmIsa::kAvx512}) {
      if (!sgemm_supports(isa)) continue;
      auto got = start;
      SgemmCall call{c.transpose_a, c.transpose_b, c.m, c.n,    c.k,        c.alpha, a.data(),
                     lda,           b.data(),      ldb, c.beta, got.data(), ldc};
      sgemm(call, &pool, isa);
      auto serial = start;
      call.c = serial.data();
      sgemm(call, nullptr, isa);
      EXPECT_EQ(got, serial) << "threads change the result";
      for (int64_t i = 0; i < c.m; ++i) {
        for (int64_t j = 0; j < c.n; ++j) {
          double sum = 0;
          for (int64_t p = 0; p < c.k; ++p) {
            const double x = c.transpose_a ? a[p * lda + i] : a[i * lda + p];
            const double y = c.transpose_b ? b[j * ldb + p] : b[p * ldb + j];
            sum += x * y;
          }
          const double want = c.alpha * sum + c.beta * start[i * ldc + j];
          ASSERT_NEAR(got[i * ldc + j], want, 1e-5 * std::sqrt(static_cast<double>(c.k + 1)))
              << c.m << "x" << c.n << "x" << c.k << " isa " << static_cast<int>(isa);
        }
        // The gap between rows stays as it was.
        ASSERT_EQ(got[i * ldc + c.n], start[i * ldc + c.n]);
      }
    }
  }
}

TEST(Sgemm, BetaZeroDoesNotReadC) {
  const float a[2] = {1, 2}, b[2] = {3, 4};
  for (SgemmIsa isa : {SgemmIsa::kGeneric, SgemmIsa::kAvx2, SgemmIsa::kAvx512}) {
    if (!sgemm_supports(isa)) continue;
    float c[1] = {NAN};
    sgemm({false, false, 1, 1, 2, 1, a, 2, b, 1, 0, c, 1}, nullptr, isa);
    EXPECT_EQ(c[0], 11.0f);
  }
}

}  // namespace
}  // namespace carat::kernels
