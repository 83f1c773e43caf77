#include "model/random_tensor.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "model/random_blocks.h"

namespace carat::model {
namespace {

constexpr float kBranch = 0.3f;  // weight of a normed branch added to the residual

float inverse_root(int64_t n) { return 1.0f / std::sqrt(static_cast<float>(n)); }

// Zero mean, unit deviation, within 3.5: the sum of four uniform 16-bit numbers.
float bell(Rng& rng) {
  const uint64_t r = rng.next();
  const auto sum =
      static_cast<int64_t>((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48));
  constexpr float kScale = 1.7320508f / 65536.0f;
  return static_cast<float>(sum - 131070) * kScale;
}

void put_half(std::byte* at, float v) {
  const uint16_t bits = to_f16(v).bits;
  std::memcpy(at, &bits, 2);
}

}  // namespace

// FNV-1a.
uint64_t random_seed(TensorRef t, uint64_t seed) {
  uint64_t h = 0xcbf29ce484222325u ^ seed;
  for (const char c : gguf_name(t)) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

Spread random_spread(const Config& c, TensorRef t) {
  using K = TensorKind;
  switch (t.kind) {
    case K::kTokenEmbedding:
      return {0, inverse_root(c.dim)};
    case K::kOutputNorm:
      return {1.5f, 0.15f, true};
    case K::kPleTable:
      return {0, inverse_root(c.ple_dim)};
    case K::kPleProjection:
      return {0, 1.0f};
    case K::kPostAttnNorm:
    case K::kPostFfnNorm:
    case K::kPlePostNorm:
      return {kBranch, 0.1f * kBranch};
    case K::kQNorm: {
      const float w = inverse_root(c.layer(t.layer).head_dim);
      return {w, 0.1f * w};
    }
    case K::kRouter:
      return {0, 1.0f};
    case K::kLayerScalar: {
      const float branches = c.has_ple() ? 3.0f : 2.0f;
      return {1.0f / std::sqrt(1.0f + branches * kBranch * kBranch), 0.01f};
    }
    default:
      break;
  }
  const Shape shape = shape_of(c, t);
  if (shape.size() == 1) return {1.0f, 0.1f};  // the other norms and scales
  return {0, inverse_root(shape.back())};
}

RandomTensor::RandomTensor(const Config& config, TensorRef t, DType dtype, uint64_t seed)
    : spread_(random_spread(config, t)), dtype_(dtype), rng_(random_seed(t, seed)) {}

void RandomTensor::next(std::span<std::byte> out) {
  const auto block = static_cast<size_t>(info(dtype_).block_bytes);
  CHECK(out.size() % block == 0);
  for (size_t at = 0; at < out.size(); at += block) {
    std::byte* p = out.data() + at;
    if (info(dtype_).block_elements > 1) {
      random_block(dtype_, rng_, spread_.deviation, p);
      continue;
    }
    float v = spread_.mean + spread_.deviation * bell(rng_);
    if (spread_.either_sign && (rng_.next() & 1) != 0) v = -v;
    if (dtype_ == DType::kF32) {
      std::memcpy(p, &v, 4);
    } else if (dtype_ == DType::kBF16) {
      const uint16_t bits = to_bf16(v).bits;
      std::memcpy(p, &bits, 2);
    } else {
      CHECK(dtype_ == DType::kF16);
      put_half(p, v);
    }
  }
}

}  // namespace carat::model
