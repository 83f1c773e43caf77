// The bytes of every encoder, with every machine's searches: recipes and published figures rest on
// them. A change that is meant to change them changes these hashes.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/iq4_fit.h"
#include "quant/scheme.h"
#include "quant/search/table.h"

namespace carat::quant {
namespace {

using Floats = std::vector<float>;

constexpr int64_t kN = 256;
constexpr int kKinds = 18, kWeightKinds = 6;

// Like a normal distribution, and from exact operations only, so that all machines have the same.
float bell(Rng& rng) {
  int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>(rng.below(1 << 20));
  return static_cast<float>(sum - (1 << 21)) * 0x1p-19f;
}

float value(int kind, int64_t i, Rng& rng) {
  const float x = bell(rng);
  const int n = static_cast<int>(rng.below(64));
  switch (kind) {
    case 0:
      return 0.03f * x;
    case 1:
      return n == 0 ? 0.5f * x : 0.02f * x;  // outliers
    case 2:
      return x * x * x * x * x;
    case 3:
      return 0.25f;
    case 4:
      return -0.0f;
    case 5:
      return static_cast<float>(n % 16 - 8) * 0.0123f;  // Q4_0's own lattice
    case 6:
      return static_cast<float>(n % 3 - 1);
    case 7:
      return x * 0x1p-100f;
    case 8:
      return x * 0x1p-145f;  // a few bits above nothing
    case 9:
      return x * 10000.0f;
    case 10:
      return std::fabs(x);
    case 11:
      return -1.0f - std::fabs(x);
    case 12:
      return i / 16 % 3 == 0 || i % 7 != 0 ? 0.0f : x;
    case 13:
      return i % 256 == 5 ? 3.0f : 0.0f;
    case 14:
      return n % 2 == 0 ? 1.0f : -1.0f;
    case 15:
      return std::ldexp(x, n / 4 - 12);  // of every size
    case 16:
      return static_cast<float>(i % 32) * 0.1f;
    default:
      return std::ldexp(static_cast<float>(n % 4 - 2), -10);  // ties
  }
}

float weight(int kind, int64_t i, Rng& rng) {
  const float size = 1.0f + std::fabs(bell(rng));
  const float spread = std::ldexp(size, static_cast<int>(rng.below(9)) - 6);
  switch (kind) {
    case 0:
      return 1.0f;
    case 1:
      return size;
    case 2:
      return spread;
    case 3:
      return i % 3 == 0 ? 0.0f : spread;
    case 4:
      return i / 32 % 2 == 0 ? 0.0f : spread;
    default:
      return i % 256 == 17 ? 1.0f : std::ldexp(spread, -60);
  }
}

uint64_t add_bytes(const std::vector<std::byte>& bytes, uint64_t hash) {
  for (const std::byte b : bytes) {
    hash = (hash ^ static_cast<uint64_t>(b)) * 1099511628211u;
  }
  return hash;
}

struct Hashes {
  uint64_t plain = 14695981039346656037u, weighted = plain;
};

Hashes hashes_of(DType type) {
  Hashes h;
  Floats x(kN), w(kN);
  std::vector<std::byte> row(static_cast<size_t>(row_bytes(type, kN)));
  for (int kind = 0; kind < kKinds; ++kind) {
    Rng rng(static_cast<uint64_t>(kind));
    for (int64_t i = 0; i < kN; ++i) x[static_cast<size_t>(i)] = value(kind, i, rng);
    encode_row(type, x.data(), row.data(), kN);
    h.plain = add_bytes(row, h.plain);
    for (int k = 0; k < kWeightKinds; ++k) {
      for (int64_t i = 0; i < kN; ++i) w[static_cast<size_t>(i)] = weight(k, i, rng);
      encode_row(type, x.data(), row.data(), kN, w.data());
      h.weighted = add_bytes(row, h.weighted);
    }
  }
  return h;
}

// As the element-by-element code gave them that these searches replaced.
struct Pinned {
  DType type;
  uint64_t plain, weighted;
};
constexpr Pinned kPinned[] = {
    {DType::kQ4_0, 0x6484d9fd23c95203u, 0x36c83273929e7335u},
    {DType::kQ8_0, 0x28b78b9faeedd63eu, 0xe614c5864ed9ca9fu},
    {DType::kQ6_K, 0xdcb416ad9ce0d737u, 0x84e7a34322fe803au},
    {DType::kQ4_1, 0xc00b2539f26113fcu, 0xe28bc6553088f788u},
    {DType::kQ5_0, 0xca308c64428b9f42u, 0x5c39faefee5141e0u},
    {DType::kQ5_1, 0xdcde4a984b8da6fbu, 0x1444a3f3c0563311u},
    {DType::kQ2_K, 0x7b28ab267d28b054u, 0x8e1de9b3b004d227u},
    {DType::kQ3_K, 0xa2e1b33cea87bc2du, 0x3b31d41c083f2014u},
    {DType::kQ4_K, 0x8570c102d3a2674eu, 0x7b971d10974c7b32u},
    {DType::kQ5_K, 0x6593ab3941f03c28u, 0x459675a000b64c8bu},
    {DType::kIQ4_NL, 0x6c7b469231ddcc0fu, 0xd42a9787c5ea47f1u},
    {DType::kIQ4_XS, 0x1648659018df89cbu, 0x5d04e0f7a38aaeebu},
    {DType::kMXFP4, 0x3e897cf446bae17cu, 0x129c75e89e8d3b2cu},
};

TEST(Searches, GiveTheSameBytesOnEveryMachine) {
  for (const search::Searches* const s : search::supported_searches()) {
    search::use_searches(s);
    for (const Pinned& p : kPinned) {
      const Hashes h = hashes_of(p.type);
      EXPECT_EQ(h.plain, p.plain) << s->isa << " " << name_of(p.type);
      EXPECT_EQ(h.weighted, p.weighted) << s->isa << " " << name_of(p.type);
    }
  }
  search::use_searches(nullptr);
}

// Levels come by table on some machines: with an extremum of -127 one candidate's inverse step is
// 1, so that elements are compared at, just below and just above the middles between levels.
TEST(Searches, FindTheNearestOfUnevenLevels) {
  const search::Searches& portable = *search::supported_searches().back();
  Rng rng(1);
  for (int block = 0; block < 300; ++block) {
    float x[32];
    uint8_t codes[32];
    for (float& v : x) {
      const int code = static_cast<int>(rng.below(15));
      const auto middle = 0.5f * static_cast<float>(kIq4Levels[code] + kIq4Levels[code + 1]);
      const float near[] = {middle, std::nextafter(middle, 200.0f), std::nextafter(middle, -200.0f),
                            middle + bell(rng)};
      v = near[rng.below(4)];
    }
    x[rng.below(32)] = -127.0f;
    const float expected = portable.iq4_step(x, nullptr, -127.0f);
    for (const search::Searches* const s : search::supported_searches()) {
      ASSERT_EQ(s->iq4_step(x, nullptr, -127.0f), expected) << s->isa << " " << block;
      s->iq4_codes(x, 1.0f, codes);
      for (int i = 0; i < 32; ++i) ASSERT_EQ(codes[i], nearest_iq4_code(x[i])) << s->isa;
    }
  }
}

}  // namespace
}  // namespace carat::quant
