// llama.cpp's .kld as a stored teacher.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "audit/kld_file.h"
#include "audit/teacher_store_kinds.h"
#include "base/error.h"
#include "base/file.h"

namespace carat::audit {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A row whose logits span this much was cut off: code 0 then means "this or less".
constexpr float kCutRange = 15.999f;

class KldTeacher final : public StoredTeacher {
 public:
  KldTeacher(const std::string& path, int32_t bos) : file_(path), bos_(bos) {
    if (bos < 0 || bos >= file_.vocab_size()) {
      throw Error({"the model's <bos> is not of the file's vocabulary",
                   path,
                   {},
                   "0 to " + std::to_string(file_.vocab_size() - 1),
                   std::to_string(bos),
                   "only models that share a tokenizer can be compared"});
    }
  }

  const std::string& path() const override { return file_.path(); }
  int64_t vocab_size() const override { return file_.vocab_size(); }
  int64_t context() const override { return file_.context(); }
  int64_t chunk_count() const override { return file_.chunks(); }
  int64_t positions() const override { return file_.chunks() * file_.rows_per_chunk(); }
  const TeacherOrigin& origin() const override { return origin_; }

  Chunk chunk(int64_t chunk) const override {
    Chunk out;
    const auto tokens = file_.tokens(chunk);
    out.tokens.assign(tokens.begin(), tokens.end());
    out.tokens.front() = bos_;
    for (int64_t r = 0; r < file_.rows_per_chunk(); ++r) {
      out.compared.push_back(static_cast<int32_t>(file_.first_position() + r));
    }
    return out;
  }

  void select(int64_t chunk) override {
    CHECK(0 <= chunk && chunk < file_.chunks());
    if (selected_ >= 0 && selected_ != chunk) file_.release(selected_);
    for (int64_t r = 0; r < file_.rows_per_chunk(); ++r) (void)file_.row(chunk, r);
    selected_ = chunk;
  }

  StoredRow fill_row(int64_t r, std::span<const float> candidate,
                     std::span<float> row) const override;

 private:
  KldFile file_;
  int32_t bos_;
  int64_t selected_ = -1;
  TeacherOrigin origin_;
};

// Codes round log p by up to half a step, so that the probabilities do not sum to 1. That would
// move the KLD in the first order; normalised, only the second order is left. Of tokens that were
// cut off nothing is known but that each has at most e^floor and that all together have what the
// others leave, within half a step: within these bounds they get what the candidate gives them.
StoredRow KldTeacher::fill_row(int64_t r, std::span<const float> candidate,
                               std::span<float> row) const {
  CHECK(selected_ >= 0);
  const auto vocab = static_cast<size_t>(vocab_size());
  CHECK(candidate.size() == vocab && row.size() == vocab);
  const KldRow codes = file_.row(selected_, r);
  const bool cut = codes.scale * 65535.0f >= kCutRange;
  const auto other = [&](size_t v) { return cut && codes.code(static_cast<int64_t>(v)) == 0; };
  const double top = *std::max_element(candidate.begin(), candidate.end());
  double known = 0, candidate_known = 0, candidate_rest = 0;
  double others = 0;
  for (size_t v = 0; v < vocab; ++v) {
    const double q = std::exp(static_cast<double>(candidate[v]) - top);
    if (other(v)) {
      candidate_rest += q;
      ++others;
    } else {
      const double log_p = static_cast<double>(codes.scale) * codes.code(static_cast<int64_t>(v)) +
                           static_cast<double>(codes.floor);
      row[v] = static_cast<float>(log_p);
      known += std::exp(log_p);
      candidate_known += q;
    }
  }
  double rest = 0;
  if (others > 0) {
    const double most = std::min(0.5, others * std::exp(static_cast<double>(codes.floor)));
    const double slack = 0.5 * static_cast<double>(codes.scale);
    const double low = std::clamp(1 - known - slack, 0.0, most);
    const double high = std::clamp(1 - known + slack, low, most);
    rest = std::clamp(candidate_rest / (candidate_rest + candidate_known), low, high);
  }
  const auto shift = static_cast<float>(std::log((1 - rest) / known));
  // A candidate that gives the rest nothing cannot say how to share it: evenly.
  const double rest_shift = rest > 0 ? std::log(rest) - top - std::log(candidate_rest) : -kInfinity;
  const auto even = static_cast<float>(std::log(rest / others));
  for (size_t v = 0; v < vocab; ++v) {
    if (!other(v)) {
      row[v] += shift;
    } else {
      row[v] = candidate_rest > 0
                   ? static_cast<float>(static_cast<double>(candidate[v]) + rest_shift)
                   : even;
    }
  }
  return {};
}

class KldWriter final : public TeacherWriter {
 public:
  KldWriter(const std::string& path, const TeacherPlan& plan)
      : vocab_(plan.vocab_size), file_(path), path_(path) {
    const int64_t context = check_plan(path, plan);
    std::vector<int32_t> tokens;
    for (const Chunk& chunk : plan.chunks) {
      tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
      rows_left_ += static_cast<int64_t>(chunk.compared.size());
    }
    file_.write(kld_head(context, vocab_, static_cast<int64_t>(plan.chunks.size()), tokens));
  }

  void add(std::span<const float> logits, ThreadPool& pool) override {
    const auto vocab = static_cast<size_t>(vocab_);
    CHECK(logits.size() % vocab == 0);
    const auto rows = static_cast<int64_t>(logits.size() / vocab);
    CHECK(rows <= rows_left_);
    const auto bytes = static_cast<size_t>(kld_row_bytes(vocab_));
    encoded_.resize(static_cast<size_t>(rows) * bytes);
    pool.parallel_for(rows, 1, [&](int64_t from, int64_t to, int) {
      for (auto r = static_cast<size_t>(from); r < static_cast<size_t>(to); ++r) {
        const auto row = logits.subspan(r * vocab, vocab);
        check_logits(row, path_, row_ + static_cast<int64_t>(r));
        encode_kld_row(row, std::span(encoded_).subspan(r * bytes, bytes));
      }
    });
    file_.write(encoded_);
    if (file_.position() - flushed_ >= kStoreWindow) {
      file_.flush_window();
      flushed_ = file_.position();
    }
    row_ += rows;
    rows_left_ -= rows;
  }

  void commit() override {
    CHECK(rows_left_ == 0);
    file_.commit();
  }

 private:
  static int64_t check_plan(const std::string& path, const TeacherPlan& plan) {
    const auto context = static_cast<int64_t>(plan.chunks.front().tokens.size());
    for (const Chunk& chunk : plan.chunks) {
      const auto length = static_cast<int64_t>(chunk.tokens.size());
      const auto rows = static_cast<int64_t>(chunk.compared.size());
      if (length == context && chunk.compared.front() == context / 2 &&
          rows == context - 1 - context / 2) {
        continue;
      }
      throw Error(
          {"a .kld file cannot hold these positions",
           path,
           {},
           "chunks of one length n, compared from position n / 2 on",
           "a chunk of " + std::to_string(length) + " tokens, " + std::to_string(rows) +
               " of them compared from position " + std::to_string(chunk.compared.front()),
           "raw text with --min-context = --context / 2 + 1 and without a shorter last chunk"
           " gives such chunks; a .carat-ref file holds any"});
    }
    return context;
  }

  int64_t vocab_;
  AtomicFile file_;
  std::string path_;
  int64_t row_ = 0, rows_left_ = 0, flushed_ = 0;
  std::vector<std::byte> encoded_;
};

}  // namespace

std::unique_ptr<StoredTeacher> open_kld_teacher(const std::string& path, int32_t bos) {
  return std::make_unique<KldTeacher>(path, bos);
}

std::unique_ptr<TeacherWriter> make_kld_writer(const std::string& path, const TeacherPlan& plan) {
  return std::make_unique<KldWriter>(path, plan);
}

}  // namespace carat::audit
