// Speed of the float matrix product at the shapes of training, for every ISA of this machine.
//
// usage: sgemm_lab [THREADS]
//
// Prints GFLOP/s, the best of several repetitions. Shapes: rows of a micro-batch times the nano
// model's matrices, forward (NT), gradient of the input (NN) and of the weights (TN), and a square.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/sgemm.h"

namespace {

using carat::kernels::SgemmCall;
using carat::kernels::SgemmIsa;

struct Shape {
  const char* what;
  bool transpose_a, transpose_b;
  int64_t m, n, k;
};

constexpr Shape kShapes[] = {
    {"forward, attention", false, true, 2048, 128, 128},
    {"forward, feed-forward", false, true, 2048, 768, 128},
    {"forward, head", false, true, 2048, 3072, 128},
    {"gradient of input, feed-forward", false, false, 2048, 128, 768},
    {"gradient of input, head", false, false, 2048, 128, 3072},
    {"gradient of weights, feed-forward", true, false, 768, 128, 2048},
    {"gradient of weights, head", true, false, 3072, 128, 2048},
    {"square", false, false, 1024, 1024, 1024},
};

double best_gflops(const Shape& s, SgemmIsa isa, carat::ThreadPool& pool) {
  carat::Rng rng(1);
  const auto random = [&](int64_t n) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = static_cast<float>(rng.uniform() - 0.5);
    return v;
  };
  const auto a = random(s.m * s.k), b = random(s.k * s.n);
  std::vector<float> c(static_cast<size_t>(s.m * s.n));
  SgemmCall call;
  call.transpose_a = s.transpose_a;
  call.transpose_b = s.transpose_b;
  call.m = s.m;
  call.n = s.n;
  call.k = s.k;
  call.a = a.data();
  call.lda = s.transpose_a ? s.m : s.k;
  call.b = b.data();
  call.ldb = s.transpose_b ? s.k : s.n;
  call.c = c.data();
  call.ldc = s.n;
  const double flop = 2.0 * static_cast<double>(s.m * s.n * s.k);
  double best = 0;
  for (int r = 0; r < (isa == SgemmIsa::kGeneric ? 2 : 20); ++r) {
    const auto start = std::chrono::steady_clock::now();
    carat::kernels::sgemm(call, &pool, isa);
    const std::chrono::duration<double> t = std::chrono::steady_clock::now() - start;
    best = std::max(best, flop / t.count() * 1e-9);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  carat::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 1);
  fmt::print("{} thread(s), GFLOP/s\n{:36}{:>10}{:>10}{:>10}\n", pool.size(), "", "generic", "AVX2",
             "AVX-512");
  for (const Shape& s : kShapes) {
    fmt::print("{:36}", s.what);
    for (SgemmIsa isa : {SgemmIsa::kGeneric, SgemmIsa::kAvx2, SgemmIsa::kAvx512}) {
      if (carat::kernels::sgemm_supports(isa)) {
        fmt::print("{:10.1f}", best_gflops(s, isa, pool));
      } else {
        fmt::print("{:>10}", "-");
      }
    }
    fmt::print("\n");
  }
}
