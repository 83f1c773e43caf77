// What recovery of lattice weights gains over plain re-quantization, and how fast it is: the table
// of docs/fidelity.md. Weights are normal, trained by each rule, exported as bfloat16. Speeds are
// the best of nine runs, in processor time.
//
//   lattice_bench [BLOCKS]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "convert/lattice_stats.h"
#include "quant/q4_0.h"
#include "quant/scheme.h"

namespace carat {
namespace {

constexpr int kN = quant::kBlock;

float bf16(float x) { return to_float(to_bf16(x)); }

float largest_magnitude(const float* w) {
  float m = 0;
  for (int j = 0; j < kN; ++j) m = std::max(m, std::fabs(w[j]));
  return m;
}

// A scale and codes in [lo, 7], nearest to w.
void snap(float* w, float d, float lo) {
  for (int j = 0; j < kN; ++j) {
    w[j] = d == 0 ? 0.0f : d * std::clamp(std::nearbyint(w[j] / d), lo, 7.0f);
  }
}

struct Rule {
  const char* name;
  void (*train)(float* w);
};

const Rule kRules[] = {
    {"signed extremum / -8, binary16 scale",
     [](float* w) { quant::decode_block_q4_0(quant::encode_block_q4_0(w), w); }},
    {"absmax / 7, bfloat16 scale", [](float* w) { snap(w, bf16(largest_magnitude(w) / 7), -7); }},
    {"absmax / 7.5, bfloat16 scale",
     [](float* w) { snap(w, bf16(largest_magnitude(w) / 7.5f), -8); }},
    {"signed extremum / -8, scale exact in both",
     [](float* w) {
       const quant::BlockQ4_0 b = quant::encode_block_q4_0(w);
       const float d = bf16(to_float(b.d));
       for (int j = 0; j < kN; ++j) w[j] = d * static_cast<float>(quant::code_of(b, j) - 8);
     }},
    {"none (ordinary bfloat16 weights)", [](float*) {}},
};

struct Deviation {
  int64_t exact = 0;
  double difference = 0, whole = 0;

  void add(const float* w, const quant::BlockQ4_0& block) {
    float value[kN];
    quant::decode_block_q4_0(block, value);
    for (int j = 0; j < kN; ++j) {
      const double e = static_cast<double>(value[j]) - w[j];
      exact += bf16(value[j]) == w[j];
      difference += e * e;
      whole += static_cast<double>(w[j]) * w[j];
    }
  }
  double relative() const { return 100 * std::sqrt(difference / whole); }
};

double percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

void measure(const Rule& rule, int64_t n_blocks, convert::RecoverRun run) {
  Rng rng(1);
  std::vector<float> w(static_cast<size_t>(n_blocks * kN));
  for (float& x : w) x = static_cast<float>(0.02 * rng.normal());
  for (int64_t b = 0; b < n_blocks; ++b) rule.train(&w[static_cast<size_t>(b * kN)]);
  for (float& x : w) x = bf16(x);

  std::vector<std::byte> stored(static_cast<size_t>(row_bytes(DType::kBF16, n_blocks * kN)));
  quant::encode_row(DType::kBF16, w.data(), stored.data(), n_blocks * kN);
  std::vector<quant::BlockQ4_0> out(static_cast<size_t>(n_blocks));
  convert::LatticeStats stats;
  double seconds = 1e9;
  for (int repeat = 0; repeat < 9; ++repeat) {
    stats = {};
    const std::clock_t begin = std::clock();  // processor time: one thread
    convert::recover_bf16_blocks(stored.data(), 0, n_blocks,
                                 reinterpret_cast<std::byte*>(out.data()), stats, run);
    seconds = std::min(seconds, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }

  Deviation plain, recovered;
  for (int64_t b = 0; b < n_blocks; ++b) {
    const float* block = &w[static_cast<size_t>(b * kN)];
    plain.add(block, quant::encode_block_q4_0(block));
    recovered.add(block, out[static_cast<size_t>(b)]);
  }
  fmt::print("| {} | {:.2f} % | {:.3f} % | {:.2f} % | {:.2f} % | {:.3f} % | {:.0f} |\n", rule.name,
             percent(plain.exact, stats.weights), plain.relative(),
             percent(stats.blocks_on_lattice, stats.blocks),
             percent(recovered.exact, stats.weights), recovered.relative(),
             static_cast<double>(stats.weights) / seconds / 1e6);
}

}  // namespace
}  // namespace carat

int main(int argc, char** argv) {
  using carat::convert::LatticeKernel;
  const int64_t n_blocks = argc > 1 ? std::max(1L, std::atol(argv[1])) : 100000;
  const auto table = [&](const char* isa, carat::convert::RecoverRun run) {
    fmt::print(
        "{}:\n| training rule | plain: weights exact | plain: error | blocks recovered | weights "
        "exact | error | million weights/s |\n|---|---|---|---|---|---|---|\n",
        isa);
    for (const carat::Rule& rule : carat::kRules) carat::measure(rule, n_blocks, run);
  };
  for (const LatticeKernel& k : carat::convert::lattice_kernels()) table(k.isa, k.run);
  table("generic", nullptr);
}
