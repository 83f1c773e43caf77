// What a stored teacher loses: the KLD through a file against the KLD from all logits.
//
//   teacher_error FOLDER
//       logits of a teacher and a candidate as tests/vectors/llama_kld.py --all leaves them there
//   teacher_error synthetic [POSITIONS]
//       a vocabulary of 262,144: for each position a teacher with Zipf's law, normal noise of its
//       own and a few tokens it prefers, sharper or flatter from position to position, and a
//       candidate that differs by normal noise of 0.3 and is flatter by 2 %
//
// Writes its files to the system's temporary folder. One line per kind of file: bytes per position;
// the mean KLD from all logits, the lower bound's and the estimate's; the root mean square
// error of both at a position; and the largest KLD of the teacher against itself.
#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "audit/compare.h"
#include "audit/kld_file.h"
#include "audit/teacher_store.h"
#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"

namespace {

using namespace carat;         // NOLINT: a program of one file
using namespace carat::audit;  // NOLINT

// Teacher and candidate at one position.
struct Pair {
  std::vector<float> teacher, candidate;
  int32_t next = 0;
};

class Source {
 public:
  virtual ~Source() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t positions() const = 0;
  virtual Pair pair(int64_t position) const = 0;
};

class Dumped final : public Source {
 public:
  explicit Dumped(const std::string& folder)
      : base_(folder + "/base.kld"),
        teacher_(folder + "/base.f32"),
        candidate_(folder + "/candidate.f32") {
    CHECK(static_cast<int64_t>(teacher_.bytes().size()) == positions() * vocab_size() * 4);
    CHECK(teacher_.bytes().size() == candidate_.bytes().size());
  }
  int64_t vocab_size() const override { return base_.vocab_size(); }
  int64_t positions() const override { return base_.chunks() * base_.rows_per_chunk(); }
  Pair pair(int64_t i) const override {
    const int64_t chunk = i / base_.rows_per_chunk();
    const int64_t row = i % base_.rows_per_chunk();
    Pair p;
    p.next = base_.tokens(chunk)[static_cast<size_t>(base_.first_position() + row + 1)];
    for (auto [file, out] : {std::pair{&teacher_, &p.teacher}, {&candidate_, &p.candidate}}) {
      out->resize(static_cast<size_t>(vocab_size()));
      std::memcpy(out->data(), file->bytes().data() + i * vocab_size() * 4,
                  static_cast<size_t>(vocab_size() * 4));
    }
    return p;
  }

 private:
  KldFile base_;
  MappedFile teacher_, candidate_;
};

class Synthetic final : public Source {
 public:
  explicit Synthetic(int64_t positions) : positions_(positions) {}
  int64_t vocab_size() const override { return 262144; }
  int64_t positions() const override { return positions_; }
  Pair pair(int64_t i) const override {
    Rng rng(static_cast<uint64_t>(i) + 1);
    const auto n = static_cast<size_t>(vocab_size());
    Pair p;
    p.teacher.resize(n);
    p.candidate.resize(n);
    const double sharpness = 0.6 + 1.2 * rng.uniform();
    for (size_t v = 0; v < n; ++v) {
      // Ranks jump about among ids, as in a real vocabulary.
      const auto rank = static_cast<double>((v * 100003) % n);
      p.teacher[v] = static_cast<float>(sharpness * (2 * rng.normal() - std::log(rank + 3)));
    }
    for (uint64_t k = 1 + rng.below(20); k > 0; --k) {
      p.teacher[rng.below(n)] += static_cast<float>(sharpness * 8 * rng.uniform());
    }
    for (size_t v = 0; v < n; ++v) {
      p.candidate[v] = 0.98f * p.teacher[v] + static_cast<float>(0.3 * rng.normal());
    }
    p.next = drawn(p.teacher, rng.uniform());
    return p;
  }

 private:
  static int32_t drawn(const std::vector<float>& logits, double u) {
    double sum = 0, seen = 0;
    for (const float x : logits) sum += std::exp(static_cast<double>(x));
    size_t v = 0;
    for (; v + 1 < logits.size(); ++v) {
      seen += std::exp(static_cast<double>(logits[v]));
      if (seen > u * sum) break;
    }
    return static_cast<int32_t>(v);
  }
  int64_t positions_;
};

// One chunk that has a row for every position: token i + 1 is what follows i. A .kld needs the form
// of llama.cpp, where rows begin in the middle.
TeacherPlan plan_for(const Source& source, bool kld) {
  TeacherPlan plan;
  plan.vocab_size = source.vocab_size();
  const int64_t n = source.positions();
  const int64_t first = kld ? n + 1 : 0;
  Chunk chunk;
  chunk.tokens.assign(static_cast<size_t>(kld ? 2 * n + 2 : n + 1), 0);
  for (int64_t i = 0; i < n; ++i) {
    chunk.tokens[static_cast<size_t>(first + i + 1)] = source.pair(i).next;
    chunk.compared.push_back(static_cast<int32_t>(first + i));
  }
  plan.chunks.push_back(std::move(chunk));
  return plan;
}

void measure(const Source& source, const std::string& name, TeacherPlan plan, ThreadPool& pool) {
  const std::string path = std::filesystem::temp_directory_path() /
                           ("teacher_error-" + std::to_string(::getpid()) + name);
  const auto n = static_cast<double>(source.positions());
  {
    const auto writer = make_teacher_writer(path, plan);
    for (int64_t i = 0; i < source.positions(); ++i) writer->add(source.pair(i).teacher, pool);
    writer->commit();
  }
  const auto teacher = open_stored_teacher(path, 0);
  teacher->select(0);
  const Chunk chunk = teacher->chunk(0);
  std::vector<float> scratch(static_cast<size_t>(source.vocab_size()));
  double exact = 0, bound = 0, estimate = 0, bound_square = 0, estimate_square = 0, self = 0;
  for (int64_t i = 0; i < source.positions(); ++i) {
    const Pair p = source.pair(i);
    const double truth = compare_position(p.teacher, p.candidate, p.next).kld;
    const StoredComparison x = compare_stored(*teacher, chunk, i, p.candidate, scratch);
    exact += truth / n;
    bound += x.kld_bound / n;
    estimate += x.position.kld / n;
    bound_square += (x.kld_bound - truth) * (x.kld_bound - truth) / n;
    estimate_square += (x.position.kld - truth) * (x.position.kld - truth) / n;
    self = std::max(self, compare_stored(*teacher, chunk, i, p.teacher, scratch).position.kld);
  }
  fmt::print("{:24} {:9.0f} {:12.8f} {:12.8f} {:12.8f} {:11.2e} {:11.2e} {:11.2e}\n",
             name == ".kld" ? name : fmt::format("top {} samples {}", plan.top, plan.samples),
             static_cast<double>(std::filesystem::file_size(path)) / n, exact, bound, estimate,
             std::sqrt(bound_square), std::sqrt(estimate_square), self);
  std::filesystem::remove(path);
}

int run(const std::vector<std::string>& arguments) {
  std::unique_ptr<Source> source;
  if (arguments[0] == "synthetic") {
    source = std::make_unique<Synthetic>(arguments.size() > 1 ? std::stoll(arguments[1]) : 200);
  } else {
    source = std::make_unique<Dumped>(arguments[0]);
  }
  ThreadPool pool(1);
  fmt::print("{:24} {:>9} {:>12} {:>12} {:>12} {:>11} {:>11} {:>11}\n", "file", "B/position",
             "exact", "bound", "estimate", "rms bound", "rms estim.", "self");
  measure(*source, ".kld", plan_for(*source, true), pool);
  for (const auto& [top, samples] : std::vector<std::pair<int64_t, int64_t>>{
           {64, 32}, {256, 0}, {256, 16}, {256, 32}, {256, 64}, {1024, 32}}) {
    TeacherPlan plan = plan_for(*source, false);
    plan.top = top;
    plan.samples = samples;
    measure(*source, ".carat-ref", plan, pool);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: teacher_error FOLDER | synthetic [POSITIONS]\n");
    return 2;
  }
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& e) {
    fmt::print(stderr, "teacher_error: {}\n", e.what());
    return 1;
  }
}
