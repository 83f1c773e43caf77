#include "calibrate/observed_ops.h"

#include <cstring>

#include "base/error.h"

namespace carat::calibrate {

using kernels::Value;
using kernels::Weight;

namespace {

// One matrix of several.
Weight matrix_of(const Weight& w, int64_t i) {
  Weight one = w;
  one.count = 1;
  one.row_begin = i * w.rows;
  if (one.data != nullptr) one.data += i * w.matrix_size();
  one.file_offset += i * w.rows * w.row_size();
  if (!w.scales.empty()) {
    one.scales.offset += i * w.rows * row_bytes(w.scales.dtype, w.cols / w.scales.columns);
  }
  return one;
}

}  // namespace

std::span<const float> ObservedOps::copy(const Value& x) {
  rows_.resize(static_cast<size_t>(x->rows * x->cols));
  inner_.read(x, rows_);
  return rows_;
}

void ObservedOps::observe(const Value& x, const Weight& w, int64_t matrix) {
  if (x->rows == 0 || w.row_begin != 0 || !observer_.wants(w)) return;
  CHECK(x->cols == w.cols);
  observer_.observe(w, matrix, copy(x));
}

Value ObservedOps::linear(const Value& x, const Weight& w) {
  observe(x, w);
  return inner_.linear(x, w);
}

Value ObservedOps::gated(const Value& x, const Weight& gate, const Weight& up) {
  observe(x, gate);
  observe(x, up);
  return inner_.gated(x, gate, up);
}

Value ObservedOps::experts(const Value& x, const kernels::Route& route, const Weight& gate_up,
                           const Weight& down) {
  if (x->rows > 0 && (observer_.wants(gate_up) || observer_.wants(down))) {
    const int64_t top_k = route.weights->cols;
    std::vector<std::vector<int32_t>> rows(static_cast<size_t>(gate_up.count));
    for (size_t i = 0; i < route.ids->size(); ++i) {
      rows[static_cast<size_t>((*route.ids)[i])].push_back(
          static_cast<int32_t>(static_cast<int64_t>(i) / top_k));
    }
    for (size_t e = 0; e < rows.size(); ++e) {
      if (rows[e].empty()) continue;
      observe_expert(inner_.take_rows(x, rows[e]), static_cast<int64_t>(e), gate_up, down);
    }
  }
  return inner_.experts(x, route, gate_up, down);
}

void ObservedOps::observe_expert(const Value& x, int64_t expert, const Weight& gate_up,
                                 const Weight& down) {
  observe(x, gate_up, expert);
  if (!observer_.wants(down)) return;
  // Gate and up rows may part inside a tile, so they are parted after the product.
  const Value both = inner_.linear(x, matrix_of(gate_up, expert));
  const std::span<const float> from = copy(both);
  const auto n = static_cast<size_t>(x->rows), width = static_cast<size_t>(down.cols);
  CHECK(from.size() == 2 * n * width);
  std::vector<float> gate(n * width), up(n * width);
  for (size_t t = 0; t < n; ++t) {
    std::memcpy(&gate[t * width], &from[2 * t * width], width * sizeof(float));
    std::memcpy(&up[t * width], &from[(2 * t + 1) * width], width * sizeof(float));
  }
  const auto value = [&](const std::vector<float>& v) {
    return inner_.input(x->rows, down.cols, v);
  };
  observe(inner_.geglu(value(gate), value(up)), down, expert);
}

Value ObservedOps::input(int64_t rows, int64_t cols, std::span<const float> values) {
  return inner_.input(rows, cols, values);
}
void ObservedOps::read(const Value& x, std::span<float> out) { inner_.read(x, out); }
Value ObservedOps::embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin,
                         int64_t cols, float factor) {
  return inner_.embed(table, ids, col_begin, cols, factor);
}
Value ObservedOps::take_rows(const Value& x, std::span<const int32_t> rows) {
  return inner_.take_rows(x, rows);
}
Value ObservedOps::rms_norm(const Value& x, const Weight* w, int64_t group, float eps) {
  return inner_.rms_norm(x, w, group, eps);
}
Value ObservedOps::rope(const Value& x, const kernels::Rope& turns,
                        std::span<const kernels::RowRef> rows) {
  return inner_.rope(x, turns, rows);
}
Value ObservedOps::add(const Value& a, const Value& b) { return inner_.add(a, b); }
Value ObservedOps::scale(const Value& x, float factor) { return inner_.scale(x, factor); }
Value ObservedOps::scale_by(const Value& x, const Weight& scalar) {
  return inner_.scale_by(x, scalar);
}
Value ObservedOps::geglu(const Value& gate, const Value& up) { return inner_.geglu(gate, up); }
Value ObservedOps::softcap(const Value& x, float cap) { return inner_.softcap(x, cap); }
Value ObservedOps::attention(const Value& q, const Value& k, const Value& v,
                             const kernels::AttentionCall& call) {
  return inner_.attention(q, k, v, call);
}
kernels::Route ObservedOps::route(const Value& logits, const Weight& expert_scale, int64_t top_k) {
  return inner_.route(logits, expert_scale, top_k);
}
Value ObservedOps::add_norm(const Value& x, const Value& y, const Weight& w, float eps) {
  return inner_.add_norm(x, y, w, eps);
}

}  // namespace carat::calibrate
