// A reference ("teacher") whose predictions were stored: read instead of being run again.
//
// Two kinds of file, told apart by their first bytes:
//
//  * llama.cpp's .kld (audit/kld_file.h): all of the vocabulary in 16 bits, 2 bytes times the
//    vocabulary per position.
//  * carat's .carat-ref (audit/teacher_store_format.h): the `top` most likely tokens, the token
//  that
//    really follows, and a sample of the rest; 1 to 2 kB per position.
//
// A stored teacher knows certain positions of certain texts only. It brings its tokens with it: the
// candidates must read those chunks, each from its beginning, and can be compared at the positions
// that have rows, no others.
//
//   auto teacher = open_stored_teacher(path, bos);
//   for (int64_t c = 0; c < teacher->chunk_count(); ++c) {
//     teacher->select(c);
//     const Chunk chunk = teacher->chunk(c);
//     candidate.start(chunk.tokens);
//     ... for each r, with the candidate's logits after chunk.compared[r]:
//       StoredComparison x = compare_stored(*teacher, chunk, r, logits, scratch);
//   }
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "audit/compare.h"
#include "audit/corpus.h"
#include "base/thread_pool.h"

namespace carat::audit {

// Where a stored teacher comes from. Every field may be empty or 0: unknown, as of every .kld.
struct TeacherOrigin {
  std::string model;         // as the user named it
  std::string model_sha256;  // of its weights, 64 hexadecimal digits
  std::string engine;        // program, version, commit, instruction set, K/V type
  struct Text {
    std::string path;
    std::string sha256;  // of the text's bytes
  };
  std::vector<Text> texts;
  std::vector<std::string> domains;  // of Chunk::domain
  std::string format;                // of the text: "raw" or "chat"
  int64_t context = 0;               // tokens a chunk, as asked for
  int64_t min_context = 0;           // tokens before the first compared one, as asked for
};

// What a row that was filled in cannot say itself.
struct StoredRow {
  // What the KLD from the row lacks, at least 0: an unbiased estimate from the stored sample; 0
  // where none is stored or nothing is missing.
  double missing_kld = 0;
  std::optional<float> entropy;  // of the teacher's whole distribution, nats, where it is stored
};

class StoredTeacher {
 public:
  virtual ~StoredTeacher() = default;
  virtual const std::string& path() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t context() const = 0;  // tokens of the longest chunk
  virtual int64_t chunk_count() const = 0;
  virtual int64_t positions() const = 0;  // rows of all chunks
  virtual const TeacherOrigin& origin() const = 0;
  // Tokens as models read them; `compared` are the positions that have rows, at least one.
  virtual Chunk chunk(int64_t chunk) const = 0;

  // Makes `chunk` the one that fill_row is about, in any order; what was mapped of the one before
  // is given back. Throws Error if the file is damaged there. Not while fill_row runs.
  virtual void select(int64_t chunk) = 0;

  // Fills `row` [vocab_size()] with log p of every token after position compared[r] of the selected
  // chunk, so that all figures of audit/compare.h can be taken from (row, candidate) as if `row`
  // were logits. Tokens of which the file knows only their total probability share it in the
  // candidate's own proportions: `candidate` is the row of logits compared with. Their share of the
  // KLD is then that of one coarse event, which is a lower bound.
  //
  // May be called from several threads. REQUIRES: r is an index of the selected chunk's `compared`.
  virtual StoredRow fill_row(int64_t r, std::span<const float> candidate,
                             std::span<float> row) const = 0;
};

// compared[r] of the selected chunk, which `chunk` is. position.kld is the best estimate: kld_bound
// plus what fill_row found missing; position.index is left to the caller. `scratch`
// [vocab_size()] is overwritten.
struct StoredComparison {
  Position position;
  double kld_bound = 0;  // the lower bound
};
[[nodiscard]] StoredComparison compare_stored(const StoredTeacher& teacher, const Chunk& chunk,
                                              int64_t r, std::span<const float> candidate,
                                              std::span<float> scratch);

// Whether a file begins as one of the two kinds. Throws Error if it cannot be read.
[[nodiscard]] bool is_stored_teacher(const std::string& path);

// `bos` replaces the first token of a .kld's chunks, as llama.cpp does; other files hold what was
// read. Throws Error for a file of neither kind, or a bad one.
[[nodiscard]] std::unique_ptr<StoredTeacher> open_stored_teacher(const std::string& path,
                                                                 int32_t bos);

// What will be stored.
struct TeacherPlan {
  int64_t vocab_size = 0;
  std::vector<Chunk> chunks;  // each with at least one compared position
  TeacherOrigin origin;
  int64_t top = 256;     // .carat-ref: tokens stored one by one per position
  int64_t samples = 32;  // .carat-ref: tokens drawn from the rest
};

// Writes a file under a temporary name; it gets its own with commit().
class TeacherWriter {
 public:
  virtual ~TeacherWriter() = default;
  // Takes the next rows: logits [n, vocab_size] after the compared positions of the plan's chunks,
  // in order, split anywhere. Throws Error if a logit is not a number or +infinity, or if all of a
  // row are -infinity. REQUIRES: no more rows than planned.
  virtual void add(std::span<const float> logits, ThreadPool& pool) = 0;
  // Flushes to the disk and renames. A .carat-ref keeps the chunks that are complete and may end
  // before its plan (early stopping), after one chunk at least; a .kld must be complete.
  virtual void commit() = 0;
};

// By the path's extension, .kld or .carat-ref; another one is an Error. A .kld can hold only chunks
// of one length n of which the positions n / 2 to n - 2 are compared; other plans are an Error that
// says which options make one (--raw text, --min-context = --context / 2 + 1, a last chunk that is
// shorter left out).
[[nodiscard]] std::unique_ptr<TeacherWriter> make_teacher_writer(const std::string& path,
                                                                 const TeacherPlan& plan);

}  // namespace carat::audit
