// AdamW (decoupled weight decay, bias correction) on flat float arrays.
//
//   m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
//   w -= lr (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + decay w)     decay on matrices only
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "train/parameters.h"

namespace carat::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0;
};

// Euclidean norm of n floats; the same for any number of threads.
double global_norm(const float* x, int64_t n, ThreadPool& pool);

// One step; `gradient_factor` multiplies every gradient first (clipping). `step` counts from 1.
// All arrays hold layout.total().
void adamw_step(const ParameterLayout& layout, const AdamWOptions& options, int64_t step,
                double learning_rate, double gradient_factor, const float* gradients,
                float* weights, float* m, float* v, ThreadPool& pool);

// Learning rate of step `step` of `steps` (from 1): linear warm-up, then cosine from `peak` to
// `peak * final_ratio` at the last step.
double learning_rate_at(int64_t step, int64_t steps, int64_t warmup, double peak,
                        double final_ratio);

}  // namespace carat::train
