#include "calibrate/gram.h"

#include <algorithm>
#include <string>

#include "base/checked.h"
#include "base/error.h"
#include "kernels/cpu/sgemm.h"

namespace carat::calibrate {
namespace {

using model::TensorClass;
using model::TensorKind;
using model::TensorRef;

constexpr int64_t kStripe = 256;  // rows of X^T X that are computed at a time

int64_t gram_bytes(int64_t columns) {
  return mul_or_throw(mul_or_throw(columns, columns, "a sum of products"), 8, "a sum of products");
}
int64_t stripe_bytes(int64_t columns) { return kStripe * columns * 4; }

int32_t id_of(const model::Weights& weights, TensorRef ref) {
  return weights.at(ref.kind, ref.layer).id;
}

// Inputs of one layer, or of what surrounds the layers, in the order of the table.
struct Input {
  TensorRef ref;
  int64_t columns, matrices;
};

// In the order of layers, what needs all of them last.
std::vector<Input> inputs_of(const model::Weights& weights) {
  std::vector<Input> inputs;
  const TensorKind output =
      weights.config.tied_embeddings ? TensorKind::kTokenEmbedding : TensorKind::kLmHead;
  for (size_t i = 0; i < weights.refs.size(); ++i) {
    const TensorRef ref = weights.refs[i], input = input_of(ref);
    const TensorClass cls = model::row_of(ref.kind).cls;
    if (cls == TensorClass::kKeep || cls == TensorClass::kPleTable) continue;
    if (cls == TensorClass::kEmbedding && ref.kind != output) continue;
    if (input.kind != ref.kind) continue;  // its input is counted where it stands
    const kernels::Weight& w = weights.all[i];
    inputs.push_back({ref, w.cols, w.count});
  }
  const auto rank = [&](const Input& a) {
    if (a.ref.kind == output) return weights.config.n_layers;
    return std::max<int64_t>(a.ref.layer, 0);
  };
  std::stable_sort(inputs.begin(), inputs.end(),
                   [&](const Input& a, const Input& b) { return rank(a) < rank(b); });
  return inputs;
}

int64_t layers_for(const model::Weights& weights, TensorRef ref) {
  if (model::row_of(ref.kind).cls == TensorClass::kEmbedding) return -1;
  return std::min(std::max<int64_t>(ref.layer, 0) + 1, weights.config.n_layers);
}

}  // namespace

TensorRef input_of(TensorRef matrix) {
  if (matrix.kind == TensorKind::kK || matrix.kind == TensorKind::kV) {
    return {TensorKind::kQ, matrix.layer};
  }
  if (matrix.kind == TensorKind::kUp) return {TensorKind::kGate, matrix.layer};
  return matrix;
}

std::vector<GramPass> plan_grams(const model::Weights& weights, int64_t budget_bytes) {
  std::vector<GramPass> passes;
  int64_t stripe = 0;  // working memory of the pass at hand
  for (const Input& input : inputs_of(weights)) {
    const int64_t one = gram_bytes(input.columns), work = stripe_bytes(input.columns);
    if (add_or_throw(one, work, "a sum of products") > budget_bytes) {
      throw Error({"the memory allowed is too small for the products of one input",
                   {},
                   "input of " + model::gguf_name(input.ref),
                   std::to_string(one + work) + " bytes",
                   std::to_string(budget_bytes) + " bytes",
                   {}});
    }
    for (int64_t m = 0; m < input.matrices; ++m) {
      const bool fits = !passes.empty() &&
                        passes.back().bytes - stripe + one + std::max(stripe, work) <= budget_bytes;
      if (!fits) {
        passes.emplace_back();
        stripe = 0;
      }
      GramPass& pass = passes.back();
      pass.bytes += one + std::max(stripe, work) - stripe;
      stripe = std::max(stripe, work);
      pass.layers = layers_for(weights, input.ref);
      const bool same = !pass.parts.empty() && pass.parts.back().input.kind == input.ref.kind &&
                        pass.parts.back().input.layer == input.ref.layer;
      if (same) {
        ++pass.parts.back().n;
      } else {
        pass.parts.push_back({input.ref, m, 1});
      }
    }
  }
  return passes;
}

GramSums::GramSums(const GramPass& pass, const model::Weights& weights, ThreadPool& pool)
    : weights_(weights), pool_(pool) {
  int64_t widest = 0;
  for (const GramPart& part : pass.parts) {
    const kernels::Weight& w = weights.at(part.input.kind, part.input.layer);
    CHECK(part.first >= 0 && part.n >= 1 && part.first + part.n <= w.count);
    widest = std::max(widest, w.cols);
    for (int64_t m = part.first; m < part.first + part.n; ++m) {
      Gram& gram = grams_[{w.id, m}];
      gram.columns = w.cols;
      gram.values.resize(static_cast<size_t>(w.cols * w.cols));
    }
  }
  stripe_.resize(static_cast<size_t>(stripe_bytes(widest) / 4));
}

bool GramSums::wants(const kernels::Weight& w) const {
  const auto at = grams_.lower_bound({w.id, 0});
  return at != grams_.end() && at->first.first == w.id;
}

void GramSums::observe(const kernels::Weight& w, int64_t matrix, std::span<const float> rows) {
  const auto at = grams_.find({w.id, matrix});
  if (at == grams_.end()) return;  // an expert of another pass
  Gram& gram = at->second;
  const int64_t columns = gram.columns, n = static_cast<int64_t>(rows.size()) / columns;
  gram.count += n;
  for (int64_t begin = 0; begin < columns; begin += kStripe) {
    const int64_t height = std::min(kStripe, columns - begin), width = columns - begin;
    kernels::SgemmCall call;  // from the diagonal to the right
    call.transpose_a = true;
    call.m = height;
    call.n = width;
    call.k = n;
    call.a = call.b = rows.data() + begin;
    call.lda = call.ldb = columns;
    call.c = stripe_.data();
    call.ldc = width;
    kernels::sgemm(call, &pool_);
    pool_.parallel_for(height, 8, [&](int64_t from, int64_t to, int) {
      for (int64_t i = from; i < to; ++i) {
        const float* const add = stripe_.data() + i * width;
        double* const sum = gram.values.data() + (begin + i) * columns + begin;
        for (int64_t j = i; j < width; ++j) {
          sum[j] += add[j];
          gram.values[static_cast<size_t>((begin + j) * columns + begin + i)] = sum[j];
        }
      }
    });
  }
}

const Gram* GramSums::find(TensorRef matrix, int64_t index) const {
  const auto at = grams_.find({id_of(weights_, input_of(matrix)), index});
  return at == grams_.end() ? nullptr : &at->second;
}

}  // namespace carat::calibrate
