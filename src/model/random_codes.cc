#include "model/random_codes.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/random_tensor.h"
#include "quant/coded_rows.h"

namespace carat::model {
namespace {

// 256 equally likely codes with zero mean, and their standard deviation.
struct Draw {
  std::array<int8_t, 256> codes;
  float deviation;
};

// The quantile of the standard normal distribution, by bisection.
double quantile(double p) {
  double lo = -8, hi = 8;
  for (int i = 0; i < 60; ++i) {
    const double x = 0.5 * (lo + hi);
    (0.5 * std::erfc(-x * M_SQRT1_2) < p ? lo : hi) = x;
  }
  return 0.5 * (lo + hi);
}

Draw make_draw(int bits) {
  Draw d;
  if (bits == 2) {
    // -2..1 with zero mean: 16, 64, 80 and 96 of 256.
    const auto fill = [&](int begin, int n, int8_t code) {
      std::fill_n(d.codes.begin() + begin, n, code);
    };
    fill(0, 16, -2), fill(16, 64, -1), fill(80, 80, 0), fill(160, 96, 1);
  } else {
    const int lowest = -(1 << (bits - 1));
    const double spread = bits == 4 ? 2.7 : 38.0;
    for (int i = 0; i < 256; ++i) {
      const double code = std::nearbyint(spread * quantile((i + 0.5) / 256.0));
      d.codes[static_cast<size_t>(i)] =
          static_cast<int8_t>(std::clamp<double>(code, lowest + 1, -lowest - 1));
    }
    d.codes[0] = static_cast<int8_t>(lowest);  // the one code without an opposite
    ++d.codes[128];
  }
  double squares = 0;
  for (const int8_t code : d.codes) squares += static_cast<double>(code) * code;
  d.deviation = static_cast<float>(std::sqrt(squares / 256.0));
  return d;
}

const Draw& draw_of(DType dtype) {
  static const Draw draws[] = {make_draw(2), make_draw(4), make_draw(8)};
  const int bits = quant::code_bits(dtype);
  return draws[bits == 2 ? 0 : bits == 4 ? 1 : 2];
}

}  // namespace

RandomCodes::RandomCodes(const Config& config, TensorRef t, DType codes, uint64_t seed)
    : dtype_(codes),
      size_(random_spread(config, t).deviation / draw_of(codes).deviation),
      codes_(random_seed(t, seed)),
      scales_(random_seed(t, seed) ^ 0x5ca1e5ca1e5ca1e5u) {}

void RandomCodes::next(std::span<std::byte> out) {
  const Draw& draw = draw_of(dtype_);
  const int bits = quant::code_bits(dtype_);
  const int offset = bits == 8 ? 0 : 1 << (bits - 1), mask = (1 << bits) - 1;
  uint64_t random = 0;
  int left = 0;  // bytes of `random` not used yet
  for (std::byte& byte : out) {
    int packed = 0;
    for (int shift = 0; shift < 8; shift += bits, --left, random >>= 8) {
      if (left == 0) random = codes_.next(), left = 8;
      packed |= ((draw.codes[random & 0xff] + offset) & mask) << shift;
    }
    byte = static_cast<std::byte>(packed);
  }
}

float RandomCodes::next_scale(bool either_sign) {
  const uint64_t r = scales_.next();
  const float magnitude = size_ * (0.8f + 0.4f * static_cast<float>(r >> 40) * 0x1p-24f);
  return either_sign && (r & 1) != 0 ? -magnitude : magnitude;
}

}  // namespace carat::model
