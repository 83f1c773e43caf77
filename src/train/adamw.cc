#include "train/adamw.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"

namespace carat::train {
namespace {

constexpr int64_t kPiece = 16384;

}  // namespace

double global_norm(const float* x, int64_t n, ThreadPool& pool) {
  const int64_t pieces = ceil_div(n, kPiece);
  std::vector<double> sums(static_cast<size_t>(pieces));
  pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      double lane[4] = {};
      const int64_t last = std::min(n, (p + 1) * kPiece);
      for (int64_t i = p * kPiece; i < last; ++i) {
        lane[i % 4] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      }
      sums[static_cast<size_t>(p)] = (lane[0] + lane[1]) + (lane[2] + lane[3]);
    }
  });
  double sum = 0;
  for (const double s : sums) sum += s;
  return std::sqrt(sum);
}

void adamw_step(const ParameterLayout& layout, const AdamWOptions& o, int64_t step,
                double learning_rate, double gradient_factor, const float* gradients,
                float* weights, float* m, float* v, ThreadPool& pool) {
  const auto b1 = static_cast<float>(o.beta1), b2 = static_cast<float>(o.beta2);
  const auto c1 = static_cast<float>(1 - o.beta1), c2 = static_cast<float>(1 - o.beta2);
  const double t = static_cast<double>(step);
  const auto rate = static_cast<float>(learning_rate / (1 - std::pow(o.beta1, t)));
  const auto v_scale = static_cast<float>(1 / (1 - std::pow(o.beta2, t)));
  const auto epsilon = static_cast<float>(o.epsilon);
  const auto factor = static_cast<float>(gradient_factor);
  for (const auto& e : layout.entries()) {
    const auto decay = e.matrix ? static_cast<float>(learning_rate * o.weight_decay) : 0.0f;
    pool.parallel_for(ceil_div(e.size, kPiece), 1, [&](int64_t begin, int64_t end, int) {
      const int64_t first = e.offset + begin * kPiece;
      const int64_t last = e.offset + std::min(e.size, end * kPiece);
      for (int64_t i = first; i < last; ++i) {
        const float g = gradients[i] * factor;
        m[i] = b1 * m[i] + c1 * g;
        v[i] = b2 * v[i] + c2 * g * g;
        const float w = weights[i];
        weights[i] = w - rate * m[i] / (std::sqrt(v[i] * v_scale) + epsilon) - decay * w;
      }
    });
  }
}

double learning_rate_at(int64_t step, int64_t steps, int64_t warmup, double peak,
                        double final_ratio) {
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  const double span = static_cast<double>(std::max<int64_t>(1, steps - warmup));
  const double done = std::min(1.0, static_cast<double>(step - warmup) / span);
  const double wave = 0.5 * (1 + std::cos(3.14159265358979323846 * done));
  return peak * (final_ratio + (1 - final_ratio) * wave);
}

}  // namespace carat::train
