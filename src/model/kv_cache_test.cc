#include "model/kv_cache.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/weights.h"

namespace carat::model {
namespace {

using kernels::KvType;

TEST(KvCache, LocalPagesLeaveWithTheWindow) {
  const Config c = config_of_size("tinykv");  // window 16, layer 0 local, layer 2 global
  KvSequence s(c, KvType::kF32, KvPagePool::create(1 << 30));
  for (int64_t position = 0; position < 1000; ++position) {
    s.prepare(1);
    const kernels::KvLayer local = s.layer(0), global = s.layer(2);
    // Everything that the query at this position sees is there.
    for (int64_t key = std::max<int64_t>(0, position - 15); key <= position; ++key) {
      ASSERT_NE(local.pages[static_cast<size_t>(key / 64)], nullptr);
    }
    for (const std::byte* page : global.pages) ASSERT_NE(page, nullptr);
    // And nothing that it does not see, but for the rest of a page.
    const int64_t first = std::max<int64_t>(0, position - 15) / 64;
    for (int64_t page = 0; page < first; ++page) {
      ASSERT_EQ(local.pages[static_cast<size_t>(page)], nullptr);
    }
    s.advance(1);
  }
}

TEST(KvCache, KeepsWhatTheFirstRowOfAChunkSees) {
  const Config c = config_of_size("tinykv");
  KvSequence s(c, KvType::kF32, KvPagePool::create(1 << 30));
  s.prepare(79);
  s.advance(79);
  s.prepare(500);  // the first row, at 79, sees keys from 64 on
  EXPECT_EQ(s.layer(0).pages[0], nullptr);
  EXPECT_NE(s.layer(0).pages[1], nullptr);
  s.clear();
  s.prepare(78);
  s.advance(78);
  s.prepare(500);  // the first row, at 78, sees keys from 63 on
  EXPECT_NE(s.layer(0).pages[0], nullptr);
}

TEST(KvCache, StaysWithinTheForecast) {
  for (const char* size : {"tiny", "tinykv", "tinymoe", "E2B", "31B"}) {
    const Config c = config_of_size(size);
    for (const int64_t chunk : {1, 7, 64, 512}) {
      const KvType type = chunk == 7 ? KvType::kI4 : KvType::kI8;
      const auto pool = KvPagePool::create(int64_t{1} << 40);
      KvSequence s(c, type, pool);
      const int64_t n = 1500;
      for (int64_t at = 0; at < n; at += chunk) {
        const int64_t step = std::min(chunk, n - at);
        s.prepare(step);
        s.advance(step);
      }
      EXPECT_LE(pool->peak_bytes(), kv_bytes(c, type, n, chunk)) << size << " " << chunk;
      EXPECT_GE(2 * pool->peak_bytes(), kv_bytes(c, type, n, chunk)) << size << " " << chunk;
    }
  }
}

TEST(KvCache, StatedScalesKeepEightBits) {
  Weights weights;
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kI8, KvType::kI4, KvType::kI4R}) {
    weights.kv_scales.clear();
    EXPECT_NO_THROW(require_kv_type(weights, type));
    weights.kv_scales.resize(2);
    if (!kernels::is_kv4(type)) {
      EXPECT_NO_THROW(require_kv_type(weights, type));
      continue;
    }
    try {
      require_kv_type(weights, type);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.info().got, type == KvType::kI4 ? "int4" : "int4r");
    }
  }
}

TEST(KvCache, BytesOfE2B) {
  // 12 local layers of 1 x 256 and 3 global ones of 1 x 512, K and V, 2 bytes: 18 KiB a token.
  const Config c = config_of_size("E2B");
  EXPECT_EQ(kv_bytes(c, KvType::kF16, 64, 64), 64 * 18 * 1024);
  EXPECT_EQ(kv_bytes(c, KvType::kF32, 64, 64), 2 * 64 * 18 * 1024);
  // A scale a vector; with int4 also a byte for each 16 elements.
  EXPECT_EQ(kv_bytes(c, KvType::kI8, 64, 64), 64 * 2 * (12 * 260 + 3 * 516));
  EXPECT_EQ(kv_bytes(c, KvType::kI4, 64, 64), 64 * 2 * (12 * 148 + 3 * 292));
  EXPECT_EQ(kv_bytes(c, KvType::kI4R, 64, 64), kv_bytes(c, KvType::kI4, 64, 64));
  // Local layers stop growing.
  const int64_t more = kv_bytes(c, KvType::kF16, 65536, 64) - kv_bytes(c, KvType::kF16, 32768, 64);
  EXPECT_EQ(more, 32768 * 3 * 512 * 2 * 2);
}

TEST(KvCache, BudgetIsHard) {
  const Config c = config_of_size("tinykv");
  const int64_t need = kv_bytes(c, KvType::kF32, 128, 128);
  const auto pool = KvPagePool::create(need);
  KvSequence s(c, KvType::kF32, pool);
  s.prepare(128);
  s.advance(128);
  EXPECT_EQ(pool->bytes_in_use(), need);
  EXPECT_THROW(s.prepare(1000), Error);
  EXPECT_LE(pool->bytes_in_use(), need);
  s.clear();
  EXPECT_EQ(pool->bytes_in_use(), 0);
  s.prepare(128);  // from pages at rest
  EXPECT_EQ(pool->peak_bytes(), need);
}

TEST(KvCache, PagesAtRestGiveWayToOtherSizes) {
  const auto pool = KvPagePool::create(1000);
  { const KvBlockRef block = pool->take(800); }
  const KvBlockRef other = pool->take(900);
  EXPECT_EQ(pool->bytes_in_use(), 900);
  EXPECT_THROW((void)pool->take(200), Error);
}

KvPrefix prefix_of(const KvSequence& s, int64_t length) {
  KvPrefix p;
  p.length = length;
  for (int64_t page = 0; page * 64 < length; ++page) {
    p.local.push_back(s.local(page));
    p.global.push_back(s.global(page));
  }
  return p;
}

void store(KvSequence& s, int64_t n) {
  s.prepare(n);
  s.advance(n);
}

TEST(KvCache, SharedBlocksOutliveASequence) {
  const Config c = config_of_size("tinykv");
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence a(c, KvType::kF32, pool), b(c, KvType::kF32, pool);
  store(a, 64);
  const int64_t bytes = pool->bytes_in_use();
  b.start_from(prefix_of(a, 64));
  EXPECT_EQ(pool->bytes_in_use(), bytes);
  EXPECT_EQ(pool->bytes_in_sequences(), bytes);
  a.clear();
  EXPECT_EQ(pool->bytes_in_use(), bytes);
  EXPECT_EQ(pool->bytes_in_sequences(), bytes);
  EXPECT_NE(b.layer(0).pages[0], nullptr);
  const KvPrefix kept = prefix_of(b, 64);
  b.clear();
  EXPECT_EQ(pool->bytes_in_use(), bytes);
  EXPECT_EQ(pool->bytes_in_sequences(), 0);
}

TEST(KvCache, APageIsWrittenByOneAndCopiedByTheOthers) {
  const Config c = config_of_size("tinykv");
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence a(c, KvType::kF32, pool), b(c, KvType::kF32, pool);
  store(a, 40);
  a.layer(2).pages[0][0] = std::byte{42};
  const std::byte* page = a.layer(2).pages[0];
  b.start_from(prefix_of(a, 40));
  // The first to go on keeps the page, the second gets a copy.
  EXPECT_EQ(a.bytes_to_prepare(5), 0);
  store(a, 5);
  EXPECT_EQ(a.layer(2).pages[0], page);
  const int64_t block = a.layout().local_bytes + a.layout().global_bytes;
  EXPECT_EQ(b.bytes_to_prepare(5), block);
  EXPECT_EQ(b.growth_to_prepare(5), block);
  store(b, 5);
  EXPECT_EQ(pool->bytes_in_use(), 2 * block);
  EXPECT_NE(b.layer(2).pages[0], page);
  EXPECT_NE(b.layer(0).pages[0], a.layer(0).pages[0]);
  EXPECT_EQ(b.layer(2).pages[0][0], std::byte{42});
  EXPECT_EQ(a.layer(2).pages[0], page);
}

TEST(KvCache, RowsGivenUpAreWrittenAnewInPlaceIfNobodyElseHoldsThem) {
  const Config c = config_of_size("tinykv");
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence a(c, KvType::kF32, pool), b(c, KvType::kF32, pool);
  store(a, 60);
  const KvBlockRef held = a.global(0);
  const uint32_t version = held->version();
  KvPrefix back = prefix_of(a, 30);
  a.start_from(back);
  EXPECT_GT(a.bytes_to_prepare(1), 0);  // `back` and `held` hold the blocks
  // The copy would replace the only use by a sequence.
  EXPECT_EQ(a.growth_to_prepare(1), 0);
  back = {};
  EXPECT_EQ(a.bytes_to_prepare(1), a.layout().global_bytes);
  store(a, 1);
  EXPECT_NE(a.global(0), held);
  EXPECT_EQ(held->version(), version);
  EXPECT_EQ(a.local(0)->version(), version + 1);
}

TEST(KvCache, StartsInTheMiddleOfAnotherSequence) {
  const Config c = config_of_size("tinykv");  // window 16
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence a(c, KvType::kF32, pool), b(c, KvType::kF32, pool);
  store(a, 130);
  b.start_from(prefix_of(a, 79));  // sees keys from 64 on
  EXPECT_EQ(b.length(), 79);
  EXPECT_EQ(b.layer(0).pages[0], nullptr);
  EXPECT_EQ(b.layer(0).pages[1], a.layer(0).pages[1]);
  EXPECT_EQ(b.layer(2).pages[0], a.layer(2).pages[0]);
  store(b, 1);
  EXPECT_NE(b.layer(0).pages[1], a.layer(0).pages[1]);  // a's rows from 79 on stay a's
  EXPECT_EQ(b.layer(2).pages[0], a.layer(2).pages[0]);
}

TEST(KvCache, GrowthIsWhatPrepareTakes) {
  const Config c = config_of_size("tinykv");
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence s(c, KvType::kF32, pool);
  for (const int64_t n : {1, 62, 1, 1, 64, 200, 3}) {
    s.drop_unseen();
    const int64_t before = pool->bytes_in_sequences(), growth = s.growth_to_prepare(n);
    EXPECT_EQ(s.bytes_to_prepare(n), growth);
    store(s, n);
    EXPECT_EQ(pool->bytes_in_sequences(), before + growth) << n;
    EXPECT_EQ(pool->bytes_in_use(), pool->bytes_in_sequences());
  }
}

TEST(KvCache, PreparesTwice) {
  const Config c = config_of_size("tinykv");
  const auto pool = KvPagePool::create(1 << 30);
  KvSequence a(c, KvType::kF32, pool);
  store(a, 40);
  const KvPrefix kept = prefix_of(a, 40);
  a.prepare(10);
  const std::byte* page = a.layer(2).pages[0];
  EXPECT_EQ(a.bytes_to_prepare(10), 0);
  a.prepare(10);
  a.prepare(5);
  EXPECT_EQ(a.layer(2).pages[0], page);
  a.advance(5);
  a.prepare(60);
  EXPECT_EQ(a.layer(2).pages[0], page);
  EXPECT_EQ(a.bytes_held(), pool->bytes_in_use());
}

}  // namespace
}  // namespace carat::model
