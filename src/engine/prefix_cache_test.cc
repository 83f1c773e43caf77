#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "base/rng.h"
#include "engine/restart_policy.h"

namespace carat::engine {
namespace {

using kernels::kKvPageTokens;
using kernels::KvType;
using model::KvPagePool;
using model::KvSequence;

uint64_t mixed(uint64_t h, int32_t token) { return Rng(h ^ static_cast<uint64_t>(token)).next(); }

// A sequence whose "keys" say which tokens led to them: row p of every page holds a hash of tokens
// [0, p].
struct Marked {
  Marked(const model::Config& config, const std::shared_ptr<KvPagePool>& pool)
      : kv(config, KvType::kF32, pool) {}

  uint64_t* row(int64_t owner, int64_t position) const {
    std::byte* page = kv.layer(owner).pages[static_cast<size_t>(position / kKvPageTokens)];
    return page == nullptr ? nullptr : reinterpret_cast<uint64_t*>(page) + position % kKvPageTokens;
  }

  void read(const std::vector<int32_t>& more, PrefixCache& cache) {
    uint64_t h = hash();
    kv.prepare(static_cast<int64_t>(more.size()));
    for (const int32_t token : more) {
      const auto position = static_cast<int64_t>(tokens.size());
      tokens.push_back(token);
      h = mixed(h, token);
      for (int64_t owner = 0; owner < owners(); ++owner) *row(owner, position) = h;
    }
    kv.advance(static_cast<int64_t>(more.size()));
    cache.enter(tokens, kv, place);
  }

  int64_t owners() const { return static_cast<int64_t>(kv.layout().layers.size()); }
  uint64_t hash() const {
    uint64_t h = 1;
    for (const int32_t token : tokens) h = mixed(h, token);
    return h;
  }

  // Every row that the next token sees is that of these tokens.
  void check() const {
    ASSERT_EQ(kv.length(), static_cast<int64_t>(tokens.size()));
    uint64_t h = 1;
    for (int64_t p = 0; p < kv.length(); ++p) {
      h = mixed(h, tokens[static_cast<size_t>(p)]);
      for (int64_t owner = 0; owner < owners(); ++owner) {
        const bool is_local = kv.layout().layers[static_cast<size_t>(owner)].is_local;
        if (is_local && p < kv.layout().first_visible(kv.length())) continue;
        ASSERT_NE(row(owner, p), nullptr);
        ASSERT_EQ(*row(owner, p), h) << "position " << p << " of " << kv.length();
      }
    }
  }

  std::vector<int32_t> tokens;
  KvSequence kv;
  PrefixCache::Place place;
};

std::vector<int32_t> few_tokens(Rng& rng, int64_t n) {
  std::vector<int32_t> t;
  // So few different ones that pages are often met again, in part or whole.
  for (int64_t i = 0; i < n; ++i) t.push_back(rng.below(40) == 0 ? 1 : 0);
  return t;
}

class PrefixCacheOf : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Seeds, PrefixCacheOf, ::testing::Range(0, 20));

TEST_P(PrefixCacheOf, GivesEveryoneTheirOwnTokens) {
  Rng rng(static_cast<uint64_t>(GetParam()));
  model::Config config = model::config_of_size("tinykv");
  config.window = GetParam() % 2 == 0 ? 16 : 200;
  const auto pool = KvPagePool::create(int64_t{1} << 30);
  PrefixCache cache(model::KvLayout(config, KvType::kF32));
  std::vector<std::unique_ptr<Marked>> sequences;
  for (int i = 0; i < 4; ++i) sequences.push_back(std::make_unique<Marked>(config, pool));
  int64_t taken = 0;
  for (int round = 0; round < 400; ++round) {
    Marked& s = *sequences[rng.below(sequences.size())];
    switch (rng.below(8)) {
      case 0:
      case 1:
      case 2:
        if (s.kv.length() < 600) {
          s.read(few_tokens(rng, 1 + static_cast<int64_t>(rng.below(120))), cache);
        }
        break;
      case 3:
        if (s.kv.length() < 600) s.read(few_tokens(rng, 1), cache);
        break;
      case 4:
        if (!s.tokens.empty()) {
          const auto at = 1 + static_cast<int64_t>(rng.below(s.tokens.size()));
          cache.add_restart_point(s.tokens, at, s.kv, s.place);
        }
        break;
      case 5:
        if (rng.below(3) == 0) (void)cache.evict();
        break;
      default: {  // starts over from what it, or another one, read
        std::vector<int32_t> wanted = sequences[rng.below(sequences.size())]->tokens;
        if (!wanted.empty()) wanted.resize(rng.below(wanted.size() + 1));
        const std::vector<int32_t> rest = few_tokens(rng, 50);
        wanted.insert(wanted.end(), rest.begin(), rest.end());
        const int64_t found = cache.find(wanted);
        const int64_t n = cache.take_up(wanted, 0, s.kv, s.place);
        EXPECT_EQ(n, found);
        if (n == 0) {
          cache.leave(s.place);
          s.kv.clear();
        }
        s.tokens.assign(wanted.begin(), wanted.begin() + n);
        taken += n;
      }
    }
    for (const auto& each : sequences) each->check();
  }
  EXPECT_GT(taken, 1000);
  for (const auto& each : sequences) {
    cache.leave(each->place);
    each->kv.clear();
  }
  EXPECT_EQ(pool->bytes_in_sequences(), 0);
  cache.clear();
  EXPECT_EQ(pool->bytes_in_use(), 0);
  EXPECT_EQ(cache.nodes(), 0);
}

TEST(PrefixCache, RestartPointsLeaveInOrderOfUse) {
  const model::Config config = model::config_of_size("tinykv");
  const auto pool = KvPagePool::create(int64_t{1} << 30);
  PrefixCache cache(model::KvLayout(config, KvType::kF32));
  const std::vector<int32_t> a(100, 1), b(100, 2);
  for (const auto& tokens : {a, b}) {
    Marked s(config, pool);
    s.read(tokens, cache);
    cache.add_restart_point(s.tokens, 100, s.kv, s.place);
    cache.leave(s.place);
  }
  EXPECT_EQ(cache.restart_points(), 2);
  EXPECT_EQ(cache.find(a), 100);
  {
    Marked s(config, pool);
    EXPECT_EQ(cache.take_up(a, 99, s.kv, s.place), 100);
    EXPECT_EQ(cache.take_up(a, 100, s.kv, s.place), 0);
    cache.leave(s.place);
  }
  EXPECT_TRUE(cache.evict());
  EXPECT_EQ(cache.find(a), 100);
  EXPECT_EQ(cache.find(b), 0);
  EXPECT_TRUE(cache.evict());
  EXPECT_FALSE(cache.evict());
  EXPECT_EQ(pool->bytes_in_use(), 0);
}

TEST(PrefixCache, EqualPagesAreKeptOnce) {
  const model::Config config = model::config_of_size("tinykv");
  const auto pool = KvPagePool::create(int64_t{1} << 30);
  PrefixCache cache(model::KvLayout(config, KvType::kF32));
  const std::vector<int32_t> tokens(128, 7);
  Marked a(config, pool), b(config, pool);
  a.read(tokens, cache);
  const int64_t bytes = pool->bytes_in_use();
  b.read(tokens, cache);
  EXPECT_EQ(pool->bytes_in_use(), bytes);
  b.check();
  cache.leave(a.place);
  cache.leave(b.place);
}

TEST(RestartPolicy, MarksTurnsAndMultiples) {
  RestartPolicy p;
  p.turn_id = 9;
  std::vector<int32_t> tokens(300, 1);
  for (const size_t turn : {1, 40, 100, 150, 200, 290}) tokens[turn] = 9;
  EXPECT_EQ(p.in_prompt(tokens), (std::vector<int64_t>{40, 200, 290, 299}));
  p.every = 128;
  EXPECT_EQ(p.in_prompt(tokens), (std::vector<int64_t>{40, 128, 200, 256, 290, 299}));
  p.turn_id = -1;
  EXPECT_EQ(p.in_prompt(tokens), (std::vector<int64_t>{128, 256, 299}));
  EXPECT_EQ(p.in_prompt(std::vector<int32_t>{2}), std::vector<int64_t>{});
}

}  // namespace
}  // namespace carat::engine
