#include "audit/teacher_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "audit/bad_files_test.h"
#include "audit/kld_file.h"
#include "audit/teacher_store_format.h"
#include "audit/teacher_store_kinds.h"
#include "audit/testing/bad_kld_files.h"
#include "audit/testing/bad_ref_files.h"
#include "base/error.h"
#include "base/rng.h"
#include "io/testing/temp_dir.h"

namespace carat::audit {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kVocab = 500;

std::vector<float> random_logits(uint64_t seed, int64_t vocab = kVocab, double width = 3) {
  Rng rng(seed);
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& x : logits) x = static_cast<float>(rng.normal() * width);
  return logits;
}

// A candidate that is near.
std::vector<float> disturbed(std::vector<float> logits, uint64_t seed, double width) {
  Rng rng(seed);
  for (float& x : logits) x += static_cast<float>(rng.normal() * width);
  return logits;
}

std::vector<Chunk> two_chunks() {
  return {{.tokens = {2, 7, 9, 400, 11, 3}, .compared = {2, 3, 4}, .domain = 0},
          {.tokens = {2, 499, 0, 8, 8, 8}, .compared = {0, 4}, .domain = 1}};
}

TeacherPlan plan_of(std::vector<Chunk> chunks) {
  TeacherPlan plan;
  plan.vocab_size = kVocab;
  plan.chunks = std::move(chunks);
  plan.origin = {.model = "teacher/",
                 .model_sha256 = std::string(64, 'a'),
                 .engine = "carat test",
                 .texts = {{"a.txt", std::string(64, 'b')}, {"b.txt", ""}},
                 .domains = {"plain", "chat"},
                 .format = "chat",
                 .context = 6,
                 .min_context = 1};
  plan.top = 20;
  plan.samples = 16;
  return plan;
}

// Logits of all rows of a plan, one after the other.
std::vector<float> logits_of(const TeacherPlan& plan) {
  std::vector<float> all;
  uint64_t seed = 0;
  for (const Chunk& chunk : plan.chunks) {
    for (size_t r = 0; r < chunk.compared.size(); ++r) {
      const auto row = random_logits(++seed, plan.vocab_size);
      all.insert(all.end(), row.begin(), row.end());
    }
  }
  return all;
}

void write(const std::string& path, const TeacherPlan& plan, std::span<const float> logits) {
  ThreadPool pool(2);
  const auto writer = make_teacher_writer(path, plan);
  const auto vocab = static_cast<size_t>(plan.vocab_size);
  // In pieces that do not fall on the ends of chunks.
  for (size_t begin = 0; begin < logits.size(); begin += 2 * vocab) {
    writer->add(logits.subspan(begin, std::min(2 * vocab, logits.size() - begin)), pool);
  }
  writer->commit();
}

TEST(RefStore, KeepsTokensPositionsAndOrigin) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  const TeacherPlan plan = plan_of(two_chunks());
  write(path, plan, logits_of(plan));
  EXPECT_TRUE(is_stored_teacher(path));
  const auto teacher = open_stored_teacher(path, 2);
  EXPECT_EQ(teacher->path(), path);
  EXPECT_EQ(teacher->vocab_size(), kVocab);
  EXPECT_EQ(teacher->context(), 6);
  EXPECT_EQ(teacher->positions(), 5);
  ASSERT_EQ(teacher->chunk_count(), 2);
  for (int64_t c = 0; c < 2; ++c) {
    const Chunk& expected = plan.chunks[static_cast<size_t>(c)];
    EXPECT_EQ(teacher->chunk(c).tokens, expected.tokens);
    EXPECT_EQ(teacher->chunk(c).compared, expected.compared);
    EXPECT_EQ(teacher->chunk(c).domain, expected.domain);
  }
  const TeacherOrigin& o = teacher->origin();
  EXPECT_EQ(o.model, "teacher/");
  EXPECT_EQ(o.model_sha256, plan.origin.model_sha256);
  EXPECT_EQ(o.engine, "carat test");
  ASSERT_EQ(o.texts.size(), 2u);
  EXPECT_EQ(o.texts[0].sha256, plan.origin.texts[0].sha256);
  EXPECT_EQ(o.texts[1].path, "b.txt");
  EXPECT_EQ(o.domains, plan.origin.domains);
  EXPECT_EQ(o.format, "chat");
  EXPECT_EQ(o.context, 6);
  EXPECT_EQ(o.min_context, 1);
}

// What the file must give, computed from all logits: the divergence of the distribution in which
// all tokens but the listed ones and the next are one event.
double coarse_kld(std::span<const float> reference, std::span<const float> candidate, int64_t top,
                  int32_t next) {
  std::vector<size_t> order(reference.size());
  for (size_t v = 0; v < order.size(); ++v) order[v] = v;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return reference[a] > reference[b]; });
  std::set<size_t> listed(order.begin(), order.begin() + top);
  listed.insert(static_cast<size_t>(next));
  double p_sum = 0, q_sum = 0, p_rest = 0, q_rest = 0;
  for (size_t v = 0; v < reference.size(); ++v) {
    p_sum += std::exp(static_cast<double>(reference[v]));
    q_sum += std::exp(static_cast<double>(candidate[v]));
  }
  double kld = 0;
  for (size_t v = 0; v < reference.size(); ++v) {
    const double p = std::exp(static_cast<double>(reference[v])) / p_sum;
    const double q = std::exp(static_cast<double>(candidate[v])) / q_sum;
    if (listed.contains(v)) {
      kld += p * std::log(p / q);
    } else {
      p_rest += p;
      q_rest += q;
    }
  }
  return kld + p_rest * std::log(p_rest / q_rest);
}

TEST(RefStore, ComparesAsTheCoarseDistributionDoes) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  const TeacherPlan plan = plan_of(two_chunks());
  const auto logits = logits_of(plan);
  write(path, plan, logits);
  const auto teacher = open_stored_teacher(path, 2);
  std::vector<float> scratch(kVocab);
  size_t row = 0;
  for (int64_t c = 0; c < 2; ++c) {
    teacher->select(c);
    const Chunk chunk = teacher->chunk(c);
    for (size_t r = 0; r < chunk.compared.size(); ++r, ++row) {
      const auto own = std::span(logits).subspan(row * kVocab, kVocab);
      const int32_t next = chunk.tokens[static_cast<size_t>(chunk.compared[r]) + 1];
      const auto other = disturbed({own.begin(), own.end()}, row, 0.5);
      const Position exact = compare_position(own, other, next);
      const auto x = compare_stored(*teacher, chunk, static_cast<int64_t>(r), other, scratch);
      EXPECT_NEAR(x.kld_bound, coarse_kld(own, other, plan.top, next), 2e-5);
      EXPECT_LT(x.kld_bound, exact.kld);
      EXPECT_NEAR(x.position.reference_nll, exact.reference_nll, 1e-5);
      EXPECT_NEAR(x.position.candidate_nll, exact.candidate_nll, 1e-9);
      EXPECT_NEAR(x.position.entropy, exact.entropy, 1e-5);
      EXPECT_EQ(x.position.top5_overlap, exact.top5_overlap);
      for (size_t k = 0; k < 3; ++k) {
        EXPECT_EQ(x.position.reference_top[k].token, exact.reference_top[k].token);
        EXPECT_NEAR(x.position.reference_top[k].probability, exact.reference_top[k].probability,
                    1e-5);
      }
      // Against itself: nothing but the rounding of codes and gaps.
      const auto same = compare_stored(*teacher, chunk, static_cast<int64_t>(r), own, scratch);
      EXPECT_LT(same.kld_bound, 1e-7);
      EXPECT_LT(same.position.kld, 2e-7);
    }
  }
}

// Many draws from one pair of rows: their mean must be what the bound lacks.
TEST(RefStore, SamplesMakeTheEstimateUnbiased) {
  const auto own = random_logits(1);
  const auto other = disturbed(own, 2, 0.7);
  std::vector<float> scratch(kVocab);
  double sum = 0;
  constexpr int kDraws = 400;
  std::vector<Chunk> chunks;
  chunks.push_back({});
  for (int i = 0; i < kDraws + 1; ++i) chunks[0].tokens.push_back(5);
  for (int i = 0; i < kDraws; ++i) chunks[0].compared.push_back(i);
  TeacherPlan plan = plan_of(chunks);
  plan.samples = 4;
  std::vector<float> logits;
  for (int i = 0; i < kDraws; ++i) logits.insert(logits.end(), own.begin(), own.end());
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  write(path, plan, logits);
  const auto teacher = open_stored_teacher(path, 2);
  teacher->select(0);
  double squares = 0;
  for (int64_t r = 0; r < kDraws; ++r) {
    const StoredRow row = teacher->fill_row(r, other, scratch);
    sum += row.missing_kld;
    squares += row.missing_kld * row.missing_kld;
  }
  const double mean = sum / kDraws;
  const double error = std::sqrt((squares / kDraws - mean * mean) / kDraws);
  const double missing = compare_position(own, other, 5).kld - coarse_kld(own, other, plan.top, 5);
  EXPECT_GT(missing, 10 * error);
  EXPECT_NEAR(mean, missing, 4 * error);
}

TEST(RefStore, ListsEverythingWhereItCan) {
  TeacherPlan plan = plan_of(two_chunks());
  plan.vocab_size = 12;
  plan.top = 12;
  plan.chunks = {{.tokens = {2, 7, 9}, .compared = {0, 1}, .domain = 0}};
  std::vector<float> logits = random_logits(3, 24);
  logits[5] = -kInfinity;
  logits[12 + 9] = -kInfinity;  // the second row's next cannot come
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  write(path, plan, logits);
  const auto teacher = open_stored_teacher(path, 2);
  teacher->select(0);
  const auto other = disturbed(random_logits(3, 12), 4, 1);
  std::vector<float> scratch(12);
  const auto x = compare_stored(*teacher, teacher->chunk(0), 0, other, scratch);
  const Position exact = compare_position(std::span(logits).first(12), other, 7);
  EXPECT_NEAR(x.position.kld, exact.kld, 1e-5);
  EXPECT_EQ(x.position.kld, x.kld_bound);
  EXPECT_EQ(scratch[5], -kInfinity);
  EXPECT_EQ(compare_stored(*teacher, teacher->chunk(0), 1, other, scratch).position.reference_nll,
            kInfinity);
}

TEST(RefStore, MayEndEarlyWithWholeChunks) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  const TeacherPlan plan = plan_of(two_chunks());
  const auto logits = logits_of(plan);
  ThreadPool pool(1);
  {
    const auto writer = make_teacher_writer(path, plan);
    writer->add(std::span(logits).first(4 * kVocab), pool);  // the second chunk lacks a row
    EXPECT_FALSE(std::filesystem::exists(path));
    writer->commit();
  }
  EXPECT_EQ(open_stored_teacher(path, 2)->chunk_count(), 1);
  {
    const auto writer = make_teacher_writer(path, plan);
    writer->add(logits, pool);
  }
  // Nothing of what was not committed.
  EXPECT_EQ(open_stored_teacher(path, 2)->chunk_count(), 1);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(RefStore, NoticesAnyDamage) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.carat-ref");
  TeacherPlan plan = plan_of(two_chunks());
  plan.top = 8;
  plan.samples = 2;
  write(path, plan, logits_of(plan));
  const std::string good = read_text_file(path, 1 << 20);
  const auto read = [](const std::string& bytes) {
    const auto teacher = open_ref_teacher("x", testing::bytes_of(bytes));
    for (int64_t c = 0; c < teacher->chunk_count(); ++c) teacher->select(c);
  };
  EXPECT_NO_THROW(read(good));
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_THROW(read(good.substr(0, n)), Error) << n;
    std::string bad = good;
    bad[n] = static_cast<char>(bad[n] ^ 0x10);
    EXPECT_THROW(read(bad), Error) << n;
  }
}

TEST(RefStore, BadFiles) {
  testing::expect_bad_files(
      testing::bad_ref_files(),
      [](std::span<const std::byte> bytes) {
        const auto teacher = open_ref_teacher("x.carat-ref", bytes);
        for (int64_t c = 0; c < teacher->chunk_count(); ++c) teacher->select(c);
      },
      "teacher_ref");
}

// A chunk without its checksum in the way: any byte may be anything.
TEST(RefStore, EveryByteOfAChunkMayBeWrong) {
  const Chunk chunk = two_chunks()[0];
  std::string good = encode_ref_chunk(chunk);
  for (const int32_t position : chunk.compared) {
    good += encode_ref_row(random_logits(9), chunk.tokens[static_cast<size_t>(position) + 1], 8, 3,
                           0.5);
  }
  EXPECT_EQ(decode_ref_rows(testing::bytes_of(good), kVocab).row_at.size(), 3u);
  for (size_t n = 0; n < good.size(); ++n) {
    EXPECT_THROW((void)decode_ref_rows(testing::bytes_of(good.substr(0, n)), kVocab), Error);
    for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
      std::string bad = good;
      bad[n] = static_cast<char>(value);
      try {
        (void)decode_ref_rows(testing::bytes_of(bad), kVocab);
      } catch (const Error&) {
      }
    }
  }
}

// Chunks as llama.cpp cuts them.
std::vector<Chunk> kld_chunks() {
  return {{.tokens = {2, 7, 9, 400, 11, 3}, .compared = {3, 4}, .domain = 0},
          {.tokens = {2, 499, 0, 8, 8, 8}, .compared = {3, 4}, .domain = 0}};
}

TEST(KldStore, IsReadAsWritten) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.kld");
  const TeacherPlan plan = plan_of(kld_chunks());
  const auto logits = logits_of(plan);
  write(path, plan, logits);
  const KldFile file(path);
  EXPECT_EQ(file.tokens(1)[1], 499);

  EXPECT_TRUE(is_stored_teacher(path));
  const auto teacher = open_stored_teacher(path, 4);
  EXPECT_EQ(teacher->context(), 6);
  EXPECT_EQ(teacher->positions(), 4);
  ASSERT_EQ(teacher->chunk_count(), 2);
  EXPECT_EQ(teacher->chunk(0).tokens, (std::vector<int32_t>{4, 7, 9, 400, 11, 3}));
  EXPECT_EQ(teacher->chunk(0).compared, (std::vector<int32_t>{3, 4}));
  std::vector<float> scratch(kVocab);
  for (const int64_t c : {1, 0}) {
    teacher->select(c);
    for (int64_t r = 0; r < 2; ++r) {
      const auto own = std::span(logits).subspan(static_cast<size_t>(2 * c + r) * kVocab, kVocab);
      const auto other = disturbed({own.begin(), own.end()}, 3, 0.3);
      const Chunk chunk = teacher->chunk(c);
      const int32_t next =
          chunk.tokens[static_cast<size_t>(chunk.compared[static_cast<size_t>(r)]) + 1];
      const Position exact = compare_position(own, other, next);
      const auto x = compare_stored(*teacher, chunk, r, other, scratch);
      EXPECT_NEAR(x.position.kld, exact.kld, 2e-5);
      EXPECT_NEAR(x.position.reference_nll, exact.reference_nll, 3e-4);
      EXPECT_EQ(x.kld_bound, x.position.kld);
      // Only the second order of the rounding is left.
      EXPECT_LT(compare_stored(*teacher, chunk, r, own, scratch).position.kld, 1e-7);
    }
  }
}

// Half of the tokens far below the first, where the file says no more than that.
TEST(KldStore, WhatWasCutOffCountsAsOneEvent) {
  io::testing::TempDir folder;
  const std::string path = folder.file("t.kld");
  TeacherPlan plan = plan_of({{.tokens = {2, 7, 9}, .compared = {1}, .domain = 0}});
  std::vector<float> own = random_logits(6, kVocab, 1);
  for (size_t v = 0; v < kVocab; v += 2) own[v] -= 14;
  write(path, plan, own);
  const auto teacher = open_stored_teacher(path, 2);
  teacher->select(0);
  const Chunk chunk = teacher->chunk(0);
  std::vector<float> scratch(kVocab);
  EXPECT_LT(compare_stored(*teacher, chunk, 0, own, scratch).position.kld, 1e-7);
  const auto other = disturbed(own, 7, 0.3);
  const auto x = compare_stored(*teacher, chunk, 0, other, scratch);
  EXPECT_NEAR(x.position.kld, compare_position(own, other, 9).kld, 2e-5);
  // A candidate that says the cut-off tokens have all of the probability is far away.
  std::vector<float> wrong = own;
  for (size_t v = 0; v < kVocab; v += 2) wrong[v] += 30;
  EXPECT_GT(compare_stored(*teacher, chunk, 0, wrong, scratch).position.kld, 10);
}

TEST(Stores, RefuseWhatTheyCannotHold) {
  io::testing::TempDir folder;
  ThreadPool pool(1);
  const TeacherPlan plan = plan_of(two_chunks());
  EXPECT_THROW((void)make_teacher_writer(folder.file("t.kld"), plan), Error);  // positions
  EXPECT_THROW((void)make_teacher_writer(folder.file("t.bin"), plan), Error);
  for (const char* name : {"t.carat-ref", "t.kld"}) {
    const auto writer = make_teacher_writer(folder.file(name), plan_of(kld_chunks()));
    std::vector<float> row(kVocab, -kInfinity);
    EXPECT_THROW(writer->add(row, pool), Error);
    row[3] = 1;
    row[4] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(writer->add(row, pool), Error);
    row[4] = kInfinity;
    EXPECT_THROW(writer->add(row, pool), Error);
    row[4] = 0;
    EXPECT_NO_THROW(writer->add(row, pool));
  }
  std::ofstream(folder.file("other")) << "GGUF and more";
  EXPECT_FALSE(is_stored_teacher(folder.file("other")));
  EXPECT_FALSE(is_stored_teacher(folder.path()));
  EXPECT_THROW((void)open_stored_teacher(folder.file("other"), 2), Error);
  EXPECT_THROW((void)is_stored_teacher(folder.file("missing")), Error);
  const std::string kld = folder.file("sound.kld");
  std::ofstream(kld, std::ios::binary) << testing::sound_kld();
  EXPECT_NO_THROW((void)open_stored_teacher(kld, 4));
  EXPECT_THROW((void)open_stored_teacher(kld, 5), Error);  // <bos> is not of its five tokens
}

}  // namespace
}  // namespace carat::audit
