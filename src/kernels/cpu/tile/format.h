// One set of 32 columns of a tile, for any format: its code vectors and its scales, and how the sum
// of its products enters an accumulator (kernels/ops.h).
#pragma once

#include "kernels/cpu/tile/isa.h"
#include "quant/iq4_fit.h"

namespace carat::kernels::tile {
namespace {

alignas(16) constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
// The same plus 128.
alignas(16) constexpr uint8_t kIq4Biased[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                129, 141, 153, 166, 181, 197, 217, 241};

constexpr bool iq4_tables_agree() {
  for (int i = 0; i < 16; ++i) {
    if (kIq4Values[i] != quant::kIq4Levels[i] || kIq4Biased[i] != quant::kIq4Levels[i] + 128) {
      return false;
    }
  }
  return true;
}
static_assert(iq4_tables_agree());

enum class Form {
  kPlain,      // d
  kMin,        // d and a minimum
  kHalves,     // d, integer scales of the halves
  kHalvesMin,  // d, dmin, integer scales and minima of the halves
  kChannel,    // nothing
};

template <TileFormat F>
struct Format {
  static constexpr TileInfo kInfo = kTileTable[static_cast<int>(F)];
  static constexpr bool kTable = F == TileFormat::kIQ4_NL || F == TileFormat::kIQ4_XS;
  static constexpr bool kByte = kInfo.low == Plane::kByte;
  static constexpr bool kSigned = kTable || kByte;
  // The largest stored code of unsigned ones.
  static constexpr int kMax = (1 << (plane_bits(kInfo.low) + plane_bits(kInfo.high))) - 1;
  static constexpr int kSets = kInfo.block_columns / static_cast<int>(kTileColumns);
  static constexpr int kSetBytes =
      kInfo.scale_bytes + plane_bytes(kInfo.low) + plane_bytes(kInfo.high);
  static constexpr int kBlockBytes = kInfo.head_bytes + kSets * kSetBytes;
  static constexpr bool kChannel = kInfo.head_bytes == 0;
  static constexpr bool kSuper = kSets > 1;

  static constexpr Form form() {
    if (kChannel) return Form::kChannel;
    if (F == TileFormat::kQ2_K) return Form::kHalvesMin;
    if (F == TileFormat::kQ6_K || F == TileFormat::kQ3_K) return Form::kHalves;
    return kInfo.head_bytes == 64 ? Form::kMin : Form::kPlain;
  }
};

// The largest code that dot products of an Isa are given, 0 for signed ones, and what is taken off.
template <class Isa, TileFormat F>
constexpr int kMaxOf = Isa::kCodeSign == CodeSign::kSigned  ? 0
                       : !Format<F>::kSigned                ? Format<F>::kMax
                       : Isa::kCodeSign == CodeSign::kMixed ? 0
                                                            : 255;
template <class Isa, TileFormat F>
constexpr int kOffsetOf = Isa::kCodeSign == CodeSign::kSigned     ? 0
                          : !Format<F>::kSigned                   ? Format<F>::kInfo.offset
                          : Isa::kCodeSign == CodeSign::kUnsigned ? 128
                                                                  : 0;

// Bits [from, from + bits) of every byte at bit `to`.
template <class Isa, int from, int bits, int to>
CARAT_INLINE typename Isa::Codes move_bits(typename Isa::Codes v) {
  constexpr uint8_t kMask = ((1 << bits) - 1) << to;
  if constexpr (from <= to) {
    return Isa::mask(Isa::template left<to - from>(v), kMask);
  } else {
    return Isa::mask(Isa::template right<from - to>(v), kMask);
  }
}

// Vector j of one plane, its bits at `to`.
template <class Isa, Plane P, int j, int to>
CARAT_INLINE typename Isa::Codes plane_vector(const std::byte* plane) {
  if constexpr (P == Plane::kNibble) {
    return move_bits<Isa, j / 4 * 4, 4, to>(Isa::load(plane + j % 4 * kPlaneVector));
  } else if constexpr (P == Plane::kPair) {
    return move_bits<Isa, j % 4 * 2, 2, to>(Isa::load(plane + j / 4 * kPlaneVector));
  } else if constexpr (P == Plane::kBit) {
    return move_bits<Isa, j, 1, to>(Isa::load(plane));
  } else {
    return Isa::load(plane + j * kPlaneVector);
  }
}

// Codes of columns 4 j .. 4 j + 3 of a set, as the Isa's dot products take them.
template <class Isa, TileFormat F, int j>
CARAT_INLINE typename Isa::Codes set_codes(const std::byte* planes) {
  using Fmt = Format<F>;
  constexpr TileInfo kInfo = Fmt::kInfo;
  typename Isa::Codes c = plane_vector<Isa, kInfo.low, j, 0>(planes);
  if constexpr (kInfo.high != Plane::kNone) {
    c = Isa::merge(c, plane_vector<Isa, kInfo.high, j, plane_bits(kInfo.low)>(
                          planes + plane_bytes(kInfo.low)));
  }
  if constexpr (Fmt::kTable) {
    if constexpr (Isa::kCodeSign == CodeSign::kUnsigned) {
      c = Isa::table(c, reinterpret_cast<const int8_t*>(kIq4Biased));
    } else {
      c = Isa::table(c, kIq4Values);
    }
  } else if constexpr (Fmt::kByte && Isa::kCodeSign == CodeSign::kUnsigned) {
    c = Isa::bias(c);
  } else if constexpr (Isa::kCodeSign == CodeSign::kSigned && kInfo.offset != 0) {
    c = Isa::minus(c, kInfo.offset);
  }
  return c;
}

// Scales of a set: read(block, set) from a tile; apply() adds the finished sum.
template <class Isa, TileFormat F, Form form = Format<F>::form()>
struct SetScales;

template <class Isa, TileFormat F>
struct SetScales<Isa, F, Form::kPlain> {
  typename Isa::Floats d;

  CARAT_INLINE void read(const std::byte* block, const std::byte* set) {
    d = Isa::load_f16(block);
    if constexpr (F == TileFormat::kIQ4_XS) {
      d = Isa::mul(d, Isa::i8_floats(Isa::load_bytes(set)));
    }
  }
  CARAT_INLINE typename Isa::Floats apply(typename Isa::Floats sum, const Token& x,
                                          typename Isa::Floats acc) const {
    return Isa::fma(Isa::mul(d, Isa::splat(x.scale)), sum, acc);
  }
};

template <class Isa, TileFormat F>
struct SetScales<Isa, F, Form::kMin> {
  typename Isa::Floats d, m;

  CARAT_INLINE void read(const std::byte* block, const std::byte* set) {
    d = Isa::load_f16(block);
    m = Isa::load_f16(block + 32);
    if constexpr (Format<F>::kSuper) {
      d = Isa::mul(d, Isa::u8_floats(Isa::load_bytes(set)));
      m = Isa::mul(m, Isa::u8_floats(Isa::load_bytes(set + 16)));
    }
  }
  CARAT_INLINE typename Isa::Floats apply(typename Isa::Floats sum, const Token& x,
                                          typename Isa::Floats acc) const {
    acc = Isa::fma(Isa::mul(d, Isa::splat(x.scale)), sum, acc);
    if constexpr (Format<F>::kSuper) return Isa::fnma(m, Isa::splat(x.scaled_sum), acc);
    return Isa::fma(m, Isa::splat(x.scaled_sum), acc);
  }
};

template <class Isa, TileFormat F>
struct SetScales<Isa, F, Form::kHalves> {
  typename Isa::Floats d;
  typename Isa::HalfScales half;

  CARAT_INLINE void read(const std::byte* block, const std::byte* set) {
    d = Isa::load_f16(block);
    half = Isa::template half_scales<kOffsetOf<Isa, F>>(Isa::load_bytes(set),
                                                        Isa::load_bytes(set + 16));
  }
  CARAT_INLINE typename Isa::Floats apply(typename Isa::Floats sum, const Token& x,
                                          typename Isa::Floats acc) const {
    return Isa::fma(Isa::mul(d, Isa::splat(x.scale)), sum, acc);
  }
};

template <class Isa, TileFormat F>
struct SetScales<Isa, F, Form::kHalvesMin> {
  typename Isa::Floats d, dmin;
  typename Isa::HalfScales half;
  typename Isa::HalfPairs minima;

  CARAT_INLINE void read(const std::byte* block, const std::byte* set) {
    d = Isa::load_f16(block);
    dmin = Isa::load_f16(block + 32);
    const typename Isa::Bytes a = Isa::load_bytes(set), b = Isa::load_bytes(set + 16);
    half = Isa::template half_scales<0>(Isa::low4(a), Isa::low4(b));
    minima = Isa::half_pairs(Isa::high4(a), Isa::high4(b));
  }
  CARAT_INLINE typename Isa::Floats apply(typename Isa::Floats sum, const Token& x,
                                          typename Isa::Floats acc) const {
    const typename Isa::Floats dx = Isa::splat(x.scale);
    acc = Isa::fma(Isa::mul(d, dx), sum, acc);
    return Isa::fnma(Isa::mul(dmin, dx), Isa::to_floats(Isa::pair_dot(minima, x.half_sums)), acc);
  }
};

template <class Isa, TileFormat F>
struct SetScales<Isa, F, Form::kChannel> {
  CARAT_INLINE void read(const std::byte*, const std::byte*) {}
  CARAT_INLINE typename Isa::Floats apply(typename Isa::Floats sum, const Token& x,
                                          typename Isa::Floats acc) const {
    return Isa::fma(Isa::splat(x.scale), sum, acc);
  }
};

constexpr bool has_halves(Form f) { return f == Form::kHalves || f == Form::kHalvesMin; }

template <class Isa, TileFormat F>
using PanelOf = typename Isa::template Panel<kMaxOf<Isa, F>>;
// The same where codes are used as soon as they are unpacked.
template <class Isa, TileFormat F>
using PlainOf = PlainPanel<Isa, kMaxOf<Isa, F>>;

// The sum of one token's products with a set: add<k>, then finish gives it as exact floats.
template <class Isa, TileFormat F, class Panel, bool kHalves = has_halves(Format<F>::form())>
struct TokenSum {
  typename Panel::Dot dot;

  CARAT_INLINE void begin(const Token& x) { dot.begin(x.start); }
  template <int k>
  CARAT_INLINE void add(const typename Panel::Codes& c, const int8_t* x, const SetScales<Isa, F>&) {
    dot.template add<k>(c, x + Panel::place_of(vector_of(k)));
  }
  CARAT_INLINE typename Isa::Floats finish(const SetScales<Isa, F>&) const {
    return Isa::to_floats(dot.sum());
  }
};

template <class Isa, TileFormat F, class Panel>
struct TokenSum<Isa, F, Panel, true> {
  typename Isa::template HalfDot<kMaxOf<Isa, F>, kOffsetOf<Isa, F>> dot;

  CARAT_INLINE void begin(const Token& x) { dot.begin(x); }
  template <int k>
  CARAT_INLINE void add(const typename Isa::Codes& c, const int8_t* x, const SetScales<Isa, F>& s) {
    dot.template add<k>(c, x + column_of(k), s.half);
  }
  CARAT_INLINE typename Isa::Floats finish(const SetScales<Isa, F>& s) const {
    return dot.sum(s.half);
  }
};

// The integers to begin with, made of the sums of set `at` of all tokens' sets.
template <class Isa, TileFormat F>
CARAT_INLINE void make_starts(const QuantizedRows& x, int64_t at, int32_t* whole, int32_t* half) {
  constexpr int kOffset = kOffsetOf<Isa, F>;
  if constexpr (has_halves(Format<F>::form())) {
    half[0] = -kOffset * x.half_sums[2 * at];
    half[1] = -kOffset * x.half_sums[2 * at + 1];
  } else if constexpr (kOffset >= 8) {
    *whole = -(kOffset / 8) * x.sums[at];
  } else if constexpr (kOffset > 0) {
    static_assert(kOffset == 2);
    *whole = -(x.sums[at] >> 2);
  } else {
    *whole = 0;
  }
}

}  // namespace
}  // namespace carat::kernels::tile
