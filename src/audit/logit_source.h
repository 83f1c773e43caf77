// A model that predicts, as an audit sees it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "audit/corpus.h"

namespace carat::audit {

// Used by one thread at a time.
class LogitSource {
 public:
  virtual ~LogitSource() = default;
  virtual const std::string& name() const = 0;  // for messages
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_context() const = 0;

  // What will be started: coming[0] next, the others after it in this order, unless the audit ends
  // earlier. For sources that work on many chunks at once.
  virtual void look_ahead(std::span<const Chunk* const> coming) { (void)coming; }
  // Forgets everything and begins with `tokens`, which are copied.
  virtual void start(std::span<const int32_t> tokens) = 0;
  // Adds tokens after those started.
  virtual void extend(std::span<const int32_t> tokens) = 0;
  // Fills `logits` [rows.size(), vocab_size()] with what follows the tokens at places `rows`.
  // REQUIRES: ascending within a call and across calls since start(); at most rows_at_once().
  virtual void read(std::span<const int32_t> rows, std::span<float> logits) = 0;

  // Rows whose logits take at most 64 MB.
  int64_t rows_at_once() const {
    return std::clamp<int64_t>((int64_t{16} << 20) / vocab_size(), 1, 256);
  }
};

}  // namespace carat::audit
