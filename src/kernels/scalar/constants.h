// The numbers of exp, tanh and GELU: shared by every ISA, which must repeat the same operations.
#pragma once

namespace carat::kernels::scalar {

// exp: x = n ln 2 + r with ln 2 in two parts; adding kRoundShift = 1.5 * 2^23 rounds to an integer
// that stands in the low mantissa bits.
constexpr float kExpLow = -104.0f;
constexpr float kExpHigh = 89.0f;
constexpr float kLog2E = 0x1.715476p+0f;
constexpr float kRoundShift = 0x1.8p+23f;
constexpr float kLn2High = 0x1.62e4p-1f;
constexpr float kLn2Low = 0x1.7f7d1cp-20f;
// e^r = 1 + r + r^2 (c[4] + c[3] r + ... + c[0] r^4) on |r| <= ln 2 / 2, Chebyshev fit.
constexpr float kExpPoly[5] = {0.00139263759958f, 0.00836333308218f, 0.0416665534587f,
                               0.166665760623f, 0.5f};

// tanh x = x + x z (c[4] + c[3] z + ... + c[0] z^4), z = x^2, on |x| < kTanhSmall, Chebyshev fit.
constexpr float kTanhSmall = 0.625f;
constexpr float kTanhPoly[5] = {-0.00609464131536f, 0.0209957538903f, -0.0538506091084f,
                                0.133327677603f, -0.333333289245f};

constexpr double kSqrt2OverPi = 0.79788456080286535588;
constexpr double kGeluCubic = 0.044715;

// Quantized activations: a block whose largest magnitude is below this counts as zero.
constexpr float kQuantizeZero = 0x1p-100f;

}  // namespace carat::kernels::scalar
