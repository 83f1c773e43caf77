// What the tile kernels ask of an instruction set: the struct `Isa` that each ISA folder defines in
// its isa.h, inside an anonymous namespace. All members are static and always inlined. Lane r of
// every vector belongs to row r of a tile.
//
// Types
//   Codes       64 bytes; byte 4 r + i belongs to row r and to column i of four
//   Ints        16 x int32, one per row
//   Floats      16 x float, one per row
//   Bytes       16 x uint8, one per row: scales as they lie in a tile
//   HalfScales  two int8 per row, in the form that HalfDot likes
//   HalfPairs   two int8 (0..15) per row, in the form that pair_dot likes
//
// Constants
//   CodeSign kCodeSign   what dot products take, see below
//   int kFewTokens       tokens that share one unpacking without a panel
//   int kSeveralTokens   up to as many tokens there is no panel
//   int kTokens          tokens of the register tile that reads panels
//   int kTiles           tiles that share one load of a token's codes there
//   bool kPlaceSums      has add_products and right_ints, and registers for 16 sums (channel.h)
//
// Codes
//   Codes load(const std::byte*)             64 bytes, no alignment
//   Codes mask(Codes, uint8_t m)             every byte & m
//   Codes merge(Codes a, Codes b)            a | b, which have no bit in common
//   Codes left<n>(Codes), right<n>(Codes)    shifts of wider units: bits cross into neighbour
//                                            bytes, the kernels mask afterwards; n may be 0
//   Codes table(Codes indices, const int8_t* t)   t[index], indices 0..15
//   Codes bias(Codes)                        every byte ^ 0x80 (kUnsigned only)
//   Codes minus(Codes, int8_t)               every byte - b (kSigned only)
//
// Numbers
//   Bytes load_bytes(const std::byte*), low4(Bytes), high4(Bytes)
//   Floats u8_floats(Bytes), i8_floats(Bytes)
// clang-format off
//   Floats load_f16(const std::byte*)        16 binary16
//   Floats load_floats(const float*)         and load_floats(p, n): n of 1..16, the others zero
//   void store_floats(float*, Floats)        and store_floats(p, x, n)
//   Floats zero(), splat(const float*)
//   Floats mul, fma(a, b, c) = a b + c, fnma(a, b, c) = c - a b, each with one rounding
//   Floats to_floats(Ints)                   to nearest even
//   void prefetch(const std::byte*)
//
// Dot products. CodeSign says which codes they are given: kSigned: int8, a format's offset already
// taken off; kUnsigned: uint8, kMax the largest, and signed codes come with 128 added; kMixed:
// uint8 if kMax > 0, int8 for kMax = 0. Activation codes are int8: -127..127 in QuantizedRows,
// -128 too in StaticRows.
//   Dot<kMax>      the sum over 32 columns. begin(const int32_t* start), then add<k>(codes, x) with
//                  k = 0..7 in this order, for columns column_of(k)..+3; x points at the activation
//                  codes of these four columns. Ints sum() includes *start.
//   HalfDot<kMax, kOffset>   scale0 S0 + scale1 S1, S0 the sum of columns 0..15 with kOffset times
//                  the sum of the activation codes taken off, as exact floats (below 2^24).
//                  begin(token), add<k>(codes, x, scales), then Floats sum(scales). k of either
//                  half ascends, the two mixed in any way.
//   Panel<kMax>    how codes and activations lie where many tokens use them: PlainPanel below, or a
//                  form that the Isa multiplies faster. Its Dot and Long are Dot and LongDot of its
//                  codes.
//   LongDot<kMax>  sums over any number of sets, x may be -128: begin(Ints), add<k>(codes, x) with
//                  k = 0..7 for each set, Ints sum(). 2^16 columns give less than 2^31.
//   Ints add_ints(Ints, Ints), splat_int(int32)
//   Ints add_products(Ints, Codes, x)   of four columns, the codes unsigned up to 255
//   Ints right_ints<n>(Ints)     shifts that keep the sign
//   Ints load_ints(const float*), void store_ints(float*, Ints)   move the bits of sums from and to
//                   16 places of an output
//   HalfScales half_scales<kOffset>(Bytes, Bytes), HalfPairs half_pairs(Bytes, Bytes)
//   Ints pair_dot(HalfPairs, const int16_t* x)   first * x[0] + second * x[1]
// An Isa with a native dot product of signed bytes says kSigned and keeps one Ints per Dot.
// clang-format on
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/table.h"
#include "kernels/cpu/tile/unroll.h"
#include "kernels/tiles.h"

namespace carat::kernels::tile {
namespace {

enum class CodeSign { kSigned, kUnsigned, kMixed };

// Vectors j and j + 4 of a set come from the same bytes, so they are used one after the other.
constexpr int kVectorOrder[8] = {0, 4, 1, 5, 2, 6, 3, 7};
constexpr int vector_of(int k) { return kVectorOrder[k]; }
constexpr int column_of(int k) { return 4 * kVectorOrder[k]; }

// What a kernel needs of one token's 32 activations: places, read where the value is used.
struct Token {
  const int8_t* codes = nullptr;
  const float* scale = nullptr;
  const float* scaled_sum = nullptr;
  const int32_t* start = nullptr;       // -offset * sum of the codes
  const int16_t* half_sums = nullptr;   // sums of both halves
  const int32_t* half_start = nullptr;  // -offset * sum of each half
};

template <class Isa, int kMax>
struct PlainPanel {
  using Codes = typename Isa::Codes;
  using Dot = typename Isa::template Dot<kMax>;
  using Long = typename Isa::template LongDot<kMax>;
  static constexpr int kTokenBytes = 32;  // of a token's set

  static CARAT_INLINE Codes pack(typename Isa::Codes c) { return c; }
  static CARAT_INLINE void pack_token(const int8_t* codes, int8_t* out) {
    __builtin_memcpy(out, codes, kTokenBytes);
  }
  // Where the four columns of vector j are.
  static constexpr int place_of(int j) { return 4 * j; }
};

}  // namespace
}  // namespace carat::kernels::tile
