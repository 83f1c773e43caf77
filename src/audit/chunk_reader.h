// One chunk at a time, read by all models of an audit and compared. Internal to audit.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "audit/audit.h"

namespace carat::audit {

class ChunkReader {
 public:
  // `save`, if there is one, is given the first reference's logits.
  ChunkReader(const AuditModels& models, ThreadPool& pool, TeacherWriter* save = nullptr);

  void look_ahead(std::span<const Chunk* const> coming);

  // What was found at the chunk's positions, [pair][position], pairs as in AuditResult. `index` is
  // the chunk's in a stored reference's file. `advance` is told how many positions were compared
  // after each step. Throws Error naming the model whose logits are not finite.
  std::vector<std::vector<Position>> read(const Chunk& chunk, int64_t index,
                                          const std::function<void(int64_t)>& advance);

 private:
  // A model that runs, each once, and its logits of the present step.
  struct Running {
    LogitSource* source;
    std::vector<float> logits;  // [rows_, vocab_]
  };
  size_t running_index(LogitSource* source);
  std::span<const float> row(size_t running, size_t r) const {
    return std::span(running_[running].logits).subspan(r * vocab_, vocab_);
  }
  void compare(const Chunk& chunk, std::span<const int32_t> rows, size_t first,
               std::vector<std::vector<Position>>& out);
  void check_finite(const std::vector<Position>& positions, size_t reference,
                    size_t candidate) const;

  const AuditModels& models_;
  ThreadPool& pool_;
  TeacherWriter* save_;
  size_t vocab_ = 0;
  int64_t rows_ = 0;  // at most so many at a time
  std::vector<Running> running_;
  std::vector<size_t> references_, candidates_;  // indices of running_; unused for a stored one
  std::vector<std::vector<float>> scratch_;      // [thread][vocab_], for stored references
};

}  // namespace carat::audit
