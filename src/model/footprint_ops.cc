#include "model/footprint_ops.h"

#include <algorithm>

#include "base/checked.h"
#include "tensor/dtype.h"

namespace carat::model {

using kernels::Value;
using kernels::Weight;

namespace {

constexpr int64_t kRoundedBytes = 48;  // of 32 activations rounded to int8, with scale and sums
constexpr int64_t kStaticBytes = 8;    // of a row, beside its codes
constexpr int64_t kFloatRows = 4;      // that a product with a matrix of floats brings into order
constexpr int64_t kTurnsKept = 6;      // sets of sines and cosines
constexpr int64_t kQueriesOfUnit = 256;

bool is_float(const Weight& w) { return info(w.dtype).block_elements == 1 && !w.tiles(); }

int64_t rounded_bytes(int64_t rows, int64_t cols) { return rows * cols / 32 * kRoundedBytes; }
int64_t static_bytes(int64_t rows, int64_t cols) { return rows * (cols + kStaticBytes); }

}  // namespace

struct FootprintOps::Sized final : kernels::ValueBase {
  FootprintOps& ops;
  void* data;
  void* rounded = nullptr;
  void* codes = nullptr;

  Sized(FootprintOps& o, int64_t n_rows, int64_t n_cols) : ops(o) {
    rows = n_rows;
    cols = n_cols;
    data = ops.pool_.take(bytes());
    ops.note_peak();
  }
  ~Sized() override {
    ops.pool_.give(data, bytes());
    ops.pool_.give(rounded, rounded_bytes(rows, cols));
    ops.pool_.give(codes, static_bytes(rows, cols));
  }
  int64_t bytes() const { return rows * cols * 4; }
};

void FootprintOps::note_peak() {
  peak_ = std::max(peak_, pool_.bytes_in_use() + pool_.bytes_at_rest());
}

void FootprintOps::need_scratch(int64_t bytes) { scratch_ = std::max(scratch_, bytes); }

Value FootprintOps::make(int64_t rows, int64_t cols) {
  return std::make_shared<Sized>(*this, rows, cols);
}

void FootprintOps::round(const Value& x) {
  auto& value = static_cast<Sized&>(*x);
  if (value.rounded || x->rows == 0) return;
  value.rounded = pool_.take(rounded_bytes(x->rows, x->cols));
  note_peak();
}

void FootprintOps::round_statically(const Value& x) {
  auto& value = static_cast<Sized&>(*x);
  rounds_ahead_ = false;
  if (value.codes || x->rows == 0) return;
  value.codes = pool_.take(static_bytes(x->rows, x->cols));
  note_peak();
}

void FootprintOps::prepare(const Value& x, const Weight& w) {
  if (is_float(w)) {
    need_scratch(kFloatRows * w.cols * 4);
  } else if (w.input_scale > 0) {
    round_statically(x);
  } else {
    round(x);
  }
}

Value FootprintOps::input(int64_t rows, int64_t cols, std::span<const float>) {
  return make(rows, cols);
}

Value FootprintOps::embed(const Weight& table, std::span<const int32_t> ids, int64_t, int64_t cols,
                          float) {
  need_scratch(table.row_size());
  return make(static_cast<int64_t>(ids.size()), cols);
}

Value FootprintOps::take_rows(const Value& x, std::span<const int32_t> rows) {
  return make(static_cast<int64_t>(rows.size()), x->cols);
}

Value FootprintOps::linear(const Value& x, const Weight& w) {
  const Value y = make(x->rows, w.rows);
  prepare(x, w);
  return y;
}

Value FootprintOps::rms_norm(const Value& x, const Weight*, int64_t group, float) {
  const Value y = make(x->rows, x->cols);
  if (rounds_ahead_ && group == x->cols && group % 32 == 0) round(y);
  return y;
}

Value FootprintOps::rope(const Value& x, const kernels::Rope& rope,
                         std::span<const kernels::RowRef> rows) {
  const auto n = static_cast<int64_t>(rows.size());
  turns_ = std::max(turns_, kTurnsKept * n * (rope.head_dim / 2) * 8);
  return make(x->rows, x->cols);
}

Value FootprintOps::add(const Value& a, const Value&) { return make(a->rows, a->cols); }
Value FootprintOps::scale(const Value& x, float) { return make(x->rows, x->cols); }
Value FootprintOps::scale_by(const Value& x, const Weight&) { return make(x->rows, x->cols); }
Value FootprintOps::geglu(const Value& gate, const Value&) { return make(gate->rows, gate->cols); }
Value FootprintOps::softcap(const Value& x, float) { return make(x->rows, x->cols); }

Value FootprintOps::add_norm(const Value& x, const Value&, const Weight&, float) {
  return make(x->rows, x->cols);
}

Value FootprintOps::gated(const Value& x, const Weight& gate, const Weight& up) {
  const Value y = make(x->rows, gate.rows), hidden = make(x->rows, gate.rows);
  prepare(x, gate);
  prepare(x, up);
  if (rounds_ahead_ && !is_float(gate) && gate.rows % 32 == 0) round(y);
  return y;
}

Value FootprintOps::attention(const Value& q, const Value&, const Value&,
                              const kernels::AttentionCall& call) {
  const Value out = make(q->rows, q->cols);
  if (kernels::is_kv_codes(kv_)) {
    // Queries in 16 bits; of each thread the scores and sums of a unit of queries, and of int4 K or
    // V of a page's head in bytes.
    const int64_t panel = kernels::is_kv4(kv_)
                              ? kernels::kv_stored_dim(kv_, call.head_dim) * kernels::kKvPageTokens
                              : 0;
    const Value codes = make(1, q->rows * q->cols / 2 + 2 * q->rows * call.n_heads);
    need_scratch(std::min(kQueriesOfUnit, q->rows * call.n_heads) *
                     (kernels::kKvPageTokens / 2 + 6 + call.head_dim) * 4 +
                 panel);
  } else {
    need_scratch(2 * kernels::kKvPageTokens * call.head_dim * 4);
  }
  return out;
}

kernels::Route FootprintOps::route(const Value& logits, const Weight&, int64_t top_k) {
  return {make(logits->rows, top_k), nullptr};
}

Value FootprintOps::experts(const Value& x, const kernels::Route& route, const Weight& gate_up,
                            const Weight& down) {
  const Value y = make(x->rows, x->cols);
  prepare(x, gate_up);
  const int64_t n = x->rows * route.weights->cols;
  Value hidden;
  {
    // Rows gathered by expert, as codes or as floats.
    const Value gathered =
        is_float(gate_up) ? make(n, x->cols) : make(1, rounded_bytes(n, x->cols) / 4);
    hidden = make(n, down.cols);
    const Value up = make(n, down.cols);
    prepare(hidden, down);
  }
  const Value out = make(n, down.rows);
  return y;
}

}  // namespace carat::model
