#include "kernels/tiles.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "kernels/tile_codes.h"

// Packing moves words of a row's block: a store of 4 bytes fills a row's share of one vector.
static_assert(std::endian::native == std::endian::little);

namespace carat::kernels {
namespace {

constexpr uint64_t kLow4 = 0x0f0f0f0f0f0f0f0f;
constexpr uint32_t kLow1 = 0x01010101;

uint64_t load64(const std::byte* p) noexcept {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}
uint32_t load32(const std::byte* p) noexcept {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
int u8(const std::byte* p) noexcept { return std::to_integer<int>(*p); }

// Where one row of a block goes in a tile.
struct RowWriter {
  std::byte* block;  // first byte of the tile's block
  int64_t r;

  void head(int k, const std::byte* f16) const noexcept {
    std::memcpy(block + k * 2 * kTileRows + 2 * r, f16, 2);
  }
  void word(std::byte* plane, int vector, uint32_t v) const noexcept {
    std::memcpy(plane + vector * kPlaneVector + 4 * r, &v, 4);
  }
  void words(std::byte* plane, int vector, uint64_t v) const noexcept {
    word(plane, vector, static_cast<uint32_t>(v));
    word(plane, vector + 1, static_cast<uint32_t>(v >> 32));
  }
};

// Bit 4 j + i of 32 to bit j of byte i: the fifth bits of 32 columns as a kBit vector has them.
uint32_t spread_bits(uint32_t bits) noexcept {
  uint32_t v = 0;
  for (int j = 0; j < 8; ++j) {
    const uint32_t four = bits >> (4 * j) & 15;
    v |= (four * 0x00204081u & kLow1) << j;  // bit i to bit 0 of byte i
  }
  return v;
}

// 32 bytes, of each of which the `nibble`-th (0 low, 1 high) half is the code of a column.
void put_nibbles(const RowWriter& to, std::byte* plane, const std::byte* bytes,
                 int nibble) noexcept {
  for (int half = 0; half < 2; ++half) {
    const uint64_t a = load64(bytes + 8 * half) >> (4 * nibble) & kLow4;
    const uint64_t b = load64(bytes + 16 + 8 * half) >> (4 * nibble) & kLow4;
    to.words(plane, 2 * half, a | b << 4);
  }
}

// Swaps fields of `shift` bits: those that `mask` leaves out in a with those that it picks in b.
void swap_fields(uint32_t& a, uint32_t& b, int shift, uint32_t mask) noexcept {
  const uint32_t differ = (a >> shift ^ b) & mask;
  b ^= differ;
  a ^= differ << shift;
}

// 32 bytes, bits 2 k and 2 k + 1 of each the code of a column in set k (0..3): word[h][k] is what
// vector h of set k's kPair plane has of a row. Byte by byte a matrix of 4 x 4 codes is turned.
struct PairWords {
  uint32_t word[2][4];

  explicit PairWords(const std::byte* bytes) noexcept {
    for (int h = 0; h < 2; ++h) {
      uint32_t* w = word[h];
      for (int j = 0; j < 4; ++j) w[j] = load32(bytes + 16 * h + 4 * j);
      swap_fields(w[0], w[1], 2, 0x33333333);
      swap_fields(w[2], w[3], 2, 0x33333333);
      swap_fields(w[0], w[2], 4, 0x0f0f0f0f);
      swap_fields(w[1], w[3], 4, 0x0f0f0f0f);
    }
  }
  void put(const RowWriter& to, std::byte* plane, int k) const noexcept {
    to.word(plane, 0, word[0][k]);
    to.word(plane, 1, word[1][k]);
  }
};

// 32 bytes, bit s of each the code of a column in set s (0..7): word[s] is what set s's kBit plane
// has of a row.
struct BitWords {
  uint32_t word[8];

  explicit BitWords(const std::byte* bytes) noexcept {
    for (int j = 0; j < 8; ++j) word[j] = load32(bytes + 4 * j);
    for (int j = 0; j < 8; j += 2) swap_fields(word[j], word[j + 1], 1, 0x55555555);
    for (int j : {0, 1, 4, 5}) swap_fields(word[j], word[j + 2], 2, 0x33333333);
    for (int j = 0; j < 4; ++j) swap_fields(word[j], word[j + 4], 4, 0x0f0f0f0f);
  }
};

// First byte of set s of a block of format F: its scales, then its planes.
template <TileFormat F>
std::byte* set_of(std::byte* block, int s) noexcept {
  constexpr const TileInfo& kInfo = kTileTable[static_cast<int>(F)];
  constexpr int kBytes = kInfo.scale_bytes + plane_bytes(kInfo.low) + plane_bytes(kInfo.high);
  return block + kInfo.head_bytes + s * kBytes;
}
constexpr int kHighOfNibble = plane_bytes(Plane::kNibble);
constexpr int kHighOfPair = plane_bytes(Plane::kPair);

// -- one row's block of each type (file layouts: docs/formats.md and quant/)
// ------------------------

// Q4_0, IQ4_NL: d, nibbles[16]. Q4_1: d, m, nibbles. The file's order of nibbles is the tile's.
template <TileFormat F, int kHeads>
void put_block_4(const std::byte* from, const RowWriter& to) noexcept {
  for (int k = 0; k < kHeads; ++k) to.head(k, from + 2 * k);
  std::byte* plane = set_of<F>(to.block, 0);
  to.words(plane, 0, load64(from + 2 * kHeads));
  to.words(plane, 2, load64(from + 2 * kHeads + 8));
}

// Q5_0: d, fifth bits u32, nibbles[16]. Q5_1: d, m, the same.
template <TileFormat F, int kHeads>
void put_block_5(const std::byte* from, const RowWriter& to) noexcept {
  for (int k = 0; k < kHeads; ++k) to.head(k, from + 2 * k);
  std::byte* plane = set_of<F>(to.block, 0);
  to.words(plane, 0, load64(from + 2 * kHeads + 4));
  to.words(plane, 2, load64(from + 2 * kHeads + 12));
  to.word(plane + kHighOfNibble, 0, spread_bits(load32(from + 2 * kHeads)));
}

// d, codes[32].
void put_q8_0(const std::byte* from, const RowWriter& to) noexcept {
  to.head(0, from);
  std::byte* plane = set_of<TileFormat::kQ8_0>(to.block, 0);
  for (int j = 0; j < 4; ++j) to.words(plane, 2 * j, load64(from + 2 + 8 * j));
}

// The eight 6-bit scales and minimums of a block of Q4_K or Q5_K.
struct ScalesK4 {
  uint64_t sc, mn;  // a byte each

  explicit ScalesK4(const std::byte* p) noexcept {
    const uint64_t a = load32(p), b = load32(p + 4), c = load32(p + 8);
    sc = (a & 0x3f3f3f3f) | ((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32;
    mn = (b & 0x3f3f3f3f) | ((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)) << 32;
  }
};

// Q4_K: d, dmin, scales[12], nibbles[128]. Q5_K: fifth bits [32] before the nibbles.
template <TileFormat F>
void put_block_k45(const std::byte* from, const RowWriter& to) noexcept {
  constexpr bool kFive = F == TileFormat::kQ5_K;
  to.head(0, from);
  to.head(1, from + 2);
  const ScalesK4 scales(from + 4);
  const std::byte* nibbles = from + 16 + (kFive ? 32 : 0);
  for (int s = 0; s < 8; ++s) {
    std::byte* set = set_of<F>(to.block, s);
    set[to.r] = static_cast<std::byte>(scales.sc >> (8 * s));
    set[kTileRows + to.r] = static_cast<std::byte>(scales.mn >> (8 * s));
    put_nibbles(to, set + 2 * kTileRows, nibbles + 32 * (s / 2), s % 2);
  }
  if constexpr (kFive) {
    const BitWords fifth(from + 16);
    for (int s = 0; s < 8; ++s) {
      to.word(set_of<F>(to.block, s) + 2 * kTileRows + kHighOfNibble, 0, fifth.word[s]);
    }
  }
}

// d, high bits of scales u16, low bits of scales [4], nibbles[128].
void put_iq4_xs(const std::byte* from, const RowWriter& to) noexcept {
  to.head(0, from);
  const int high = u8(from + 2) | u8(from + 3) << 8;
  for (int s = 0; s < 8; ++s) {
    std::byte* set = set_of<TileFormat::kIQ4_XS>(to.block, s);
    const int low = u8(from + 4 + s / 2) >> (4 * (s % 2)) & 15;
    set[to.r] = static_cast<std::byte>((low | (high >> (2 * s) & 3) << 4) - 32);
    to.words(set + kTileRows, 0, load64(from + 8 + 16 * s));
    to.words(set + kTileRows, 2, load64(from + 16 + 16 * s));
  }
}

// low bits [128], high bits [64], scales[16], d.
void put_q6_k(const std::byte* from, const RowWriter& to) noexcept {
  to.head(0, from + 208);
  for (int h = 0; h < 2; ++h) {
    const PairWords high(from + 128 + 32 * h);
    for (int k = 0; k < 4; ++k) {
      std::byte* set = set_of<TileFormat::kQ6_K>(to.block, 4 * h + k);
      set[to.r] = from[192 + 8 * h + 2 * k];
      set[kTileRows + to.r] = from[192 + 8 * h + 2 * k + 1];
      set += 2 * kTileRows;
      put_nibbles(to, set, from + 64 * h + 32 * (k % 2), k / 2);
      high.put(to, set + kHighOfNibble, k);
    }
  }
}

// third bits [32], pairs [64], scales [12], d.
void put_q3_k(const std::byte* from, const RowWriter& to) noexcept {
  to.head(0, from + 108);
  const std::byte* scales = from + 96;
  const BitWords third(from);
  for (int h = 0; h < 2; ++h) {
    const PairWords low(from + 32 + 32 * h);
    for (int k = 0; k < 4; ++k) {
      const int s = 4 * h + k;
      std::byte* set = set_of<TileFormat::kQ3_K>(to.block, s);
      for (int i = 2 * s; i < 2 * s + 2; ++i) {
        const int four = u8(scales + i % 8) >> (i < 8 ? 0 : 4) & 15;
        const int two = u8(scales + 8 + i % 4) >> (2 * (i / 4)) & 3;
        set[i % 2 * kTileRows + to.r] = static_cast<std::byte>((four | two << 4) - 32);
      }
      low.put(to, set + 2 * kTileRows, k);
      to.word(set + 2 * kTileRows + kHighOfPair, 0, third.word[s]);
    }
  }
}

// scales [16], pairs [64], d, dmin.
void put_q2_k(const std::byte* from, const RowWriter& to) noexcept {
  to.head(0, from + 80);
  to.head(1, from + 82);
  for (int h = 0; h < 2; ++h) {
    const PairWords codes(from + 16 + 32 * h);
    for (int k = 0; k < 4; ++k) {
      std::byte* set = set_of<TileFormat::kQ2_K>(to.block, 4 * h + k);
      set[to.r] = from[8 * h + 2 * k];
      set[kTileRows + to.r] = from[8 * h + 2 * k + 1];
      codes.put(to, set + 2 * kTileRows, k);
    }
  }
}

using PutBlock = void (*)(const std::byte*, const RowWriter&) noexcept;

template <DType dtype, TileFormat F, PutBlock put>
void pack_rows(const std::byte* rows, int64_t n, int64_t cols, std::byte* tile) noexcept {
  const int64_t block_bytes = info(dtype).block_bytes;
  const int64_t blocks = cols / kTileTable[static_cast<int>(F)].block_columns;
  const int64_t row_size = blocks * block_bytes;
  for (int64_t b = 0; b < blocks; ++b, tile += tile_block_bytes(F)) {
    for (int64_t r = 0; r < n; ++r) put(rows + r * row_size + b * block_bytes, {tile, r});
  }
}

struct Packer {
  DType dtype;
  TileFormat format;
  void (*pack)(const std::byte*, int64_t, int64_t, std::byte*) noexcept;
};

template <DType dtype, TileFormat F, PutBlock put>
constexpr Packer packer() {
  return {dtype, F, pack_rows<dtype, F, put>};
}

using enum TileFormat;
constexpr Packer kPackers[] = {
    packer<DType::kQ4_0, kQ4_0, put_block_4<kQ4_0, 1>>(),
    packer<DType::kIQ4_NL, kIQ4_NL, put_block_4<kIQ4_NL, 1>>(),
    packer<DType::kQ5_0, kQ5_0, put_block_5<kQ5_0, 1>>(),
    packer<DType::kQ8_0, kQ8_0, put_q8_0>(),
    packer<DType::kQ4_1, kQ4_1, put_block_4<kQ4_1, 2>>(),
    packer<DType::kQ5_1, kQ5_1, put_block_5<kQ5_1, 2>>(),
    packer<DType::kQ4_K, kQ4_K, put_block_k45<kQ4_K>>(),
    packer<DType::kQ5_K, kQ5_K, put_block_k45<kQ5_K>>(),
    packer<DType::kIQ4_XS, kIQ4_XS, put_iq4_xs>(),
    packer<DType::kQ6_K, kQ6_K, put_q6_k>(),
    packer<DType::kQ3_K, kQ3_K, put_q3_k>(),
    packer<DType::kQ2_K, kQ2_K, put_q2_k>(),
};

const Packer* packer_of(DType dtype) noexcept {
  for (const Packer& p : kPackers) {
    if (p.dtype == dtype) return &p;
  }
  return nullptr;
}

// -- channel formats
// -------------------------------------------------------------------------------

// One row's 32 codes, unsigned but for kByte.
void put_channel_set(TileFormat format, const int8_t* codes, std::byte* plane, int64_t r) noexcept {
  const TileInfo& i = tile_info(format);
  for (int c = 0; c < kTileColumns; ++c) {
    const int n = codes[c] + i.offset;
    const int64_t at = 4 * r + c % 4;
    if (i.low == Plane::kByte) {
      plane[c / 4 * kPlaneVector + at] = static_cast<std::byte>(n);
    } else if (i.low == Plane::kNibble) {
      plane[c % 16 / 4 * kPlaneVector + at] |= static_cast<std::byte>((n & 15) << c / 16 * 4);
    } else {
      plane[c / 16 * kPlaneVector + at] |= static_cast<std::byte>((n & 3) << c % 16 / 4 * 2);
    }
  }
}

// -- back to floats
// --------------------------------------------------------------------------------

template <TileFormat F>
void unpack_row(const std::byte* tile, int64_t r, int64_t cols, float* out) noexcept {
  using enum TileFormat;
  for (int64_t s = 0; s < cols / kTileColumns; ++s) {
    const TileSet<F> set(tile, s);
    for (int c = 0; c < kTileColumns; ++c) {
      const int half = c / 16;
      const float n = static_cast<float>(set.code(r, c));
      float& w = out[s * kTileColumns + c];
      if constexpr (F == kC2 || F == kC4 || F == kC8) {
        w = channel_scale(F, tile, cols, r) * n;
      } else if constexpr (F == kQ4_1 || F == kQ5_1) {
        w = set.head_scale(0, r) * n + set.head_scale(1, r);
      } else if constexpr (F == kQ4_K || F == kQ5_K) {
        const float d = set.head_scale(0, r) * static_cast<float>(set.u8(0, r));
        w = d * n - set.head_scale(1, r) * static_cast<float>(set.u8(1, r));
      } else if constexpr (F == kQ2_K) {
        const float d = set.head_scale(0, r) * static_cast<float>(set.u8(half, r) & 15);
        w = d * n - set.head_scale(1, r) * static_cast<float>(set.u8(half, r) >> 4);
      } else if constexpr (F == kQ6_K || F == kQ3_K) {
        w = set.head_scale(0, r) * static_cast<float>(set.i8(half, r)) * n;
      } else if constexpr (F == kIQ4_XS) {
        w = set.head_scale(0, r) * static_cast<float>(set.i8(0, r)) * n;
      } else {
        w = set.head_scale(0, r) * n;
      }
    }
  }
}

}  // namespace

std::optional<TileFormat> tile_format(DType dtype) {
  const Packer* p = packer_of(dtype);
  return p ? std::optional(p->format) : std::nullopt;
}

void pack_tile(DType dtype, const std::byte* rows, int64_t n, int64_t cols,
               std::byte* tile) noexcept {
  const Packer* p = packer_of(dtype);
  CHECK(p && n >= 0 && n <= kTileRows && cols % tile_info(p->format).block_columns == 0);
  if (n < kTileRows) std::memset(tile, 0, static_cast<size_t>(tile_bytes(p->format, cols)));
  p->pack(rows, n, cols, tile);
}

void pack_channel_tile(TileFormat format, const int8_t* codes, const float* scales, int64_t n,
                       int64_t cols, std::byte* tile) noexcept {
  const TileInfo& i = tile_info(format);
  CHECK(i.tail_bytes > 0 && n >= 0 && n <= kTileRows && cols % kTileColumns == 0);
  std::memset(tile, 0, static_cast<size_t>(tile_bytes(format, cols)));
  for (int64_t s = 0; s < cols / kTileColumns; ++s, tile += tile_block_bytes(format)) {
    for (int64_t r = 0; r < n; ++r) {
      put_channel_set(format, codes + r * cols + s * kTileColumns, tile, r);
    }
  }
  std::memcpy(tile, scales, static_cast<size_t>(n) * sizeof(float));
}

void unpack_tile_row(TileFormat format, const std::byte* tile, int64_t r, int64_t cols,
                     float* out) noexcept {
  CHECK(r >= 0 && r < kTileRows && cols % tile_info(format).block_columns == 0);
  using Unpack = void (*)(const std::byte*, int64_t, int64_t, float*) noexcept;
  static constexpr Unpack kUnpack[kTileFormats] = {
      unpack_row<kQ4_0>,   unpack_row<kIQ4_NL>, unpack_row<kQ5_0>, unpack_row<kQ8_0>,
      unpack_row<kQ4_1>,   unpack_row<kQ5_1>,   unpack_row<kQ4_K>, unpack_row<kQ5_K>,
      unpack_row<kIQ4_XS>, unpack_row<kQ6_K>,   unpack_row<kQ3_K>, unpack_row<kQ2_K>,
      unpack_row<kC2>,     unpack_row<kC4>,     unpack_row<kC8>};
  kUnpack[static_cast<int>(format)](tile, r, cols, out);
}

}  // namespace carat::kernels
