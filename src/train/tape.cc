#include "train/tape.h"

#include <cmath>
#include <cstring>

#include "train/tape_impl.h"

namespace carat::train {

using kernels::Rope;
using kernels::RowRef;

template <class T>
Tape<T>::Tape(const ParameterLayout& layout, const T* values, T* gradients, ThreadPool& pool)
    : layout_(layout), values_(values), gradients_(gradients), pool_(pool), loops_(loops<T>()) {}

template <class T>
Tape<T>::~Tape() = default;

template <class T>
kernels::Value Tape<T>::make(int64_t rows, int64_t cols) {
  auto n = std::make_shared<Node>();
  n->rows = rows;
  n->cols = cols;
  n->value = arena_.template get<T>(rows * cols);
  nodes_.push_back(n);
  return n;
}

template <class T>
const T* Tape<T>::parameter(const Weight& w) const {
  CHECK(w.id >= 0 && w.id < static_cast<int64_t>(layout_.entries().size()));
  const auto& e = layout_[w.id];
  CHECK(w.row_begin * w.cols + w.count * w.rows * w.cols <= e.size);
  return values_ + layout_.offset(w);
}

template <class T>
T* Tape<T>::parameter_gradient(const Weight& w) const {
  return gradients_ + layout_.offset(w);
}

template <class T>
const T* Tape<T>::data(const Value& x) const {
  return node(x)->value;
}

template <class T>
const T* Tape<T>::gradient(const Value& x) const {
  return node(x)->gradient;
}

template <class T>
void Tape<T>::reset() {
  steps_.clear();
  keys_.clear();
  nodes_.clear();
  arena_.reset();
}

template <class T>
void Tape<T>::backward() {
  CHECK(recording());
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
  steps_.clear();
}

template <class T>
kernels::Value Tape<T>::input(int64_t rows, int64_t cols, std::span<const float> values) {
  CHECK(static_cast<int64_t>(values.size()) == rows * cols);
  const Value y = make(rows, cols);
  std::copy(values.begin(), values.end(), node(y)->value);
  return y;
}

template <class T>
void Tape<T>::read(const Value& x, std::span<float> out) {
  const Node* n = node(x);
  CHECK(static_cast<int64_t>(out.size()) == n->size());
  for (int64_t i = 0; i < n->size(); ++i)
    out[static_cast<size_t>(i)] = static_cast<float>(n->value[i]);
}

template <class T>
kernels::Value Tape<T>::embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin,
                              int64_t cols, float factor) {
  const int64_t n = static_cast<int64_t>(ids.size());
  const Value y = make(n, cols);
  const T* p = parameter(table);
  T* to = node(y)->value;
  for (int64_t t = 0; t < n; ++t) {
    const int64_t id = ids[static_cast<size_t>(t)];
    CHECK(id >= 0 && id < table.rows);
    loops_.scale(cols, static_cast<T>(factor), p + id * table.cols + col_begin, to + t * cols);
  }
  record([this, table, col_begin, cols, factor, y, kept = std::vector(ids.begin(), ids.end())] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* g = parameter_gradient(table) + col_begin;
    for (size_t t = 0; t < kept.size(); ++t) {
      loops_.axpy(cols, static_cast<T>(factor), dy + static_cast<int64_t>(t) * cols,
                  g + kept[t] * table.cols);
    }
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::take_rows(const Value& x, std::span<const int32_t> rows) {
  const int64_t n = static_cast<int64_t>(rows.size());
  const int64_t cols = x->cols;
  const Value y = make(n, cols);
  for (int64_t t = 0; t < n; ++t) {
    const int64_t row = rows[static_cast<size_t>(t)];
    CHECK(row >= 0 && row < x->rows);
    std::copy_n(node(x)->value + row * cols, cols, node(y)->value + t * cols);
  }
  record([this, x, y, cols, kept = std::vector(rows.begin(), rows.end())] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    for (size_t t = 0; t < kept.size(); ++t) {
      loops_.axpy(cols, T(1), dy + static_cast<int64_t>(t) * cols, dx + kept[t] * cols);
    }
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::linear(const Value& x, const Weight& w) {
  const bool blocks = rounds_blocks_ && w.input_scale == 0 && w.tiles();
  const Value in = blocks ? rounded_blocks(x) : rounded(x, w.input_scale);
  return rounded(product(in, w), w.output_scale);
}

template <class T>
kernels::Value Tape<T>::product(const Value& x, const Weight& w) {
  CHECK(w.count == 1 && x->cols == w.cols);
  const Value y = make(x->rows, w.rows);
  gemm(false, true, x->rows, w.rows, w.cols, node(x)->value, parameter(w), T(0), node(y)->value,
       &pool_);
  record([this, x, y, w] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    bool fresh;
    T* dx = gradient_of(node(x), &fresh);
    gemm(false, false, x->rows, w.cols, w.rows, dy, parameter(w), fresh ? T(0) : T(1), dx, &pool_);
    gemm(true, false, w.rows, w.cols, x->rows, dy, node(x)->value, T(1), parameter_gradient(w),
         &pool_);
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::rms_norm(const Value& x, const Weight* w, int64_t group, float eps) {
  CHECK(group > 0 && x->cols % group == 0);
  CHECK(!w || w->rows * w->cols == group);
  const int64_t n = x->rows * (x->cols / group);
  const Value y = make(x->rows, x->cols);
  T* r = arena_.template get<T>(n);
  const T* p = w ? parameter(*w) : nullptr;
  each(n, row_grain(group), [&](int64_t i) {
    r[i] = loops_.rms_norm(group, static_cast<T>(eps), node(x)->value + i * group, p,
                           node(y)->value + i * group);
  });
  record([this, x, y, r, n, group, has_weight = w != nullptr, weight = w ? *w : Weight{}] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    const T* from = node(x)->value;
    if (!has_weight) {
      each(n, row_grain(group), [&](int64_t i) {
        loops_.rms_norm_backward(group, r[i], from + i * group, nullptr, dy + i * group,
                                 dx + i * group, nullptr);
      });
      return;
    }
    const T* value = parameter(weight);
    reduce(n, row_grain(group), group, parameter_gradient(weight),
           [&](int64_t begin, int64_t end, T* dw) {
             for (int64_t i = begin; i < end; ++i) {
               loops_.rms_norm_backward(group, r[i], from + i * group, value, dy + i * group,
                                        dx + i * group, dw);
             }
           });
  });
  return y;
}

template <class T>
const typename Tape<T>::RopeTable& Tape<T>::rope_table(const Rope& rope, int32_t max_position) {
  RopeTable* table = nullptr;
  for (const auto& t : ropes_) {
    if (t->rope.head_dim == rope.head_dim && t->rope.inverse_frequency == rope.inverse_frequency) {
      table = t.get();
    }
  }
  if (!table) {
    ropes_.push_back(std::make_unique<RopeTable>());
    table = ropes_.back().get();
    table->rope = rope;
  }
  for (; table->positions <= max_position; ++table->positions) {
    for (const float f : rope.inverse_frequency) {
      const double angle = static_cast<float>(table->positions) * f;
      table->cos.push_back(static_cast<T>(std::cos(angle)));
      table->sin.push_back(static_cast<T>(std::sin(angle)));
    }
  }
  return *table;
}

template <class T>
kernels::Value Tape<T>::rope(const Value& x, const Rope& rope, std::span<const RowRef> rows) {
  CHECK(static_cast<int64_t>(rows.size()) == x->rows && x->cols % rope.head_dim == 0);
  const Value y = make(x->rows, x->cols);
  int32_t last = 0;
  std::vector<int32_t> positions;
  for (const RowRef& r : rows) {
    CHECK(r.position >= 0);
    positions.push_back(r.position);
    last = std::max(last, r.position);
  }
  const RopeTable* table = &rope_table(rope, last);
  const int64_t half = rope.head_dim / 2;
  each(x->rows, row_grain(x->cols), [&](int64_t t) {
    const int64_t at = positions[static_cast<size_t>(t)] * half;
    for (int64_t c = t * x->cols; c < (t + 1) * x->cols; c += 2 * half) {
      loops_.rope(half, table->cos.data() + at, table->sin.data() + at, node(x)->value + c,
                  node(y)->value + c);
    }
  });
  record([this, x, y, half, table, kept = std::move(positions)] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    each(x->rows, row_grain(x->cols), [&](int64_t t) {
      const int64_t at = kept[static_cast<size_t>(t)] * half;
      for (int64_t c = t * x->cols; c < (t + 1) * x->cols; c += 2 * half) {
        loops_.rope_backward(half, table->cos.data() + at, table->sin.data() + at, dy + c, dx + c);
      }
    });
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::add(const Value& a, const Value& b) {
  CHECK(a->rows == b->rows && a->cols == b->cols);
  const Value y = make(a->rows, a->cols);
  const int64_t cols = a->cols;
  each(a->rows, row_grain(cols), [&](int64_t t) {
    loops_.add(cols, node(a)->value + t * cols, node(b)->value + t * cols,
               node(y)->value + t * cols);
  });
  record([this, a, b, y, cols] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    for (const Value* x : {&a, &b}) {
      bool fresh;
      T* dx = gradient_of(node(*x), &fresh);
      each(y->rows, row_grain(cols), [&](int64_t t) {
        if (fresh) {
          std::memcpy(dx + t * cols, dy + t * cols, static_cast<size_t>(cols) * sizeof(T));
        } else {
          loops_.axpy(cols, T(1), dy + t * cols, dx + t * cols);
        }
      });
    }
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::scale(const Value& x, float factor) {
  const Value y = make(x->rows, x->cols);
  const int64_t cols = x->cols;
  each(x->rows, row_grain(cols), [&](int64_t t) {
    loops_.scale(cols, static_cast<T>(factor), node(x)->value + t * cols,
                 node(y)->value + t * cols);
  });
  record([this, x, y, cols, factor] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    each(x->rows, row_grain(cols), [&](int64_t t) {
      loops_.axpy(cols, static_cast<T>(factor), dy + t * cols, dx + t * cols);
    });
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::scale_by(const Value& x, const Weight& scalar) {
  CHECK(scalar.count * scalar.rows * scalar.cols == 1);
  const Value y = make(x->rows, x->cols);
  const int64_t cols = x->cols;
  const T factor = *parameter(scalar);
  each(x->rows, row_grain(cols), [&](int64_t t) {
    loops_.scale(cols, factor, node(x)->value + t * cols, node(y)->value + t * cols);
  });
  record([this, x, y, cols, scalar] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    const T f = *parameter(scalar);
    reduce(x->rows, row_grain(cols), 1, parameter_gradient(scalar),
           [&](int64_t begin, int64_t end, T* sum) {
             for (int64_t t = begin; t < end; ++t) {
               *sum += loops_.dot(cols, node(x)->value + t * cols, dy + t * cols);
               loops_.axpy(cols, f, dy + t * cols, dx + t * cols);
             }
           });
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::geglu(const Value& gate, const Value& up) {
  CHECK(gate->rows == up->rows && gate->cols == up->cols);
  const Value y = make(gate->rows, gate->cols);
  const int64_t cols = gate->cols;
  each(gate->rows, row_grain(cols), [&](int64_t t) {
    const int64_t o = t * cols;
    loops_.geglu(cols, node(gate)->value + o, node(up)->value + o, node(y)->value + o);
  });
  record([this, gate, up, y, cols] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dgate = gradient_of(node(gate));
    T* dup = gradient_of(node(up));
    each(y->rows, row_grain(cols), [&](int64_t t) {
      const int64_t o = t * cols;
      loops_.geglu_backward(cols, node(gate)->value + o, node(up)->value + o, dy + o, dgate + o,
                            dup + o);
    });
  });
  return y;
}

template <class T>
kernels::Value Tape<T>::softcap(const Value& x, float cap) {
  const Value y = make(x->rows, x->cols);
  const int64_t cols = x->cols;
  each(x->rows, row_grain(cols), [&](int64_t t) {
    loops_.softcap(cols, static_cast<T>(cap), node(x)->value + t * cols, node(y)->value + t * cols);
  });
  record([this, x, y, cols, cap] {
    const T* dy = node(y)->gradient;
    if (!dy) return;
    T* dx = gradient_of(node(x));
    each(x->rows, row_grain(cols), [&](int64_t t) {
      const int64_t o = t * cols;
      loops_.softcap_backward(cols, static_cast<T>(cap), node(y)->value + o, dy + o, dx + o);
    });
  });
  return y;
}

template <class T>
double Tape<T>::sum_rows(std::span<const T> rows) const {
  double sum = 0;
  for (const T x : rows) sum += static_cast<double>(x);
  return sum;
}

template <class T>
double Tape<T>::cross_entropy(const Value& logits, std::span<const int32_t> targets,
                              double weight) {
  CHECK(static_cast<int64_t>(targets.size()) == logits->rows);
  const int64_t cols = logits->cols;
  T* dx = recording() ? gradient_of(node(logits)) : nullptr;
  std::vector<T> loss(targets.size());
  each(logits->rows, row_grain(cols), [&](int64_t t) {
    const int32_t target = targets[static_cast<size_t>(t)];
    if (target < 0) return;
    CHECK(target < cols);
    loss[static_cast<size_t>(t)] =
        loops_.cross_entropy(cols, node(logits)->value + t * cols, target, static_cast<T>(weight),
                             dx ? dx + t * cols : nullptr);
  });
  return sum_rows(loss);
}

template <class T>
double Tape<T>::distillation(const Value& logits, const T* teacher, double weight) {
  const int64_t cols = logits->cols;
  T* dx = recording() ? gradient_of(node(logits)) : nullptr;
  std::vector<T> loss(static_cast<size_t>(logits->rows));
  pool_.parallel_for(logits->rows, row_grain(cols), [&](int64_t begin, int64_t end, int) {
    std::vector<T> scratch(static_cast<size_t>(cols));
    for (int64_t t = begin; t < end; ++t) {
      loss[static_cast<size_t>(t)] =
          loops_.distillation(cols, teacher + t * cols, node(logits)->value + t * cols,
                              static_cast<T>(weight), dx ? dx + t * cols : nullptr, scratch.data());
    }
  });
  return sum_rows(loss);
}

template <class T>
double Tape<T>::project(const Value& y, std::span<const T> direction, double weight) {
  const Node* n = node(y);
  CHECK(static_cast<int64_t>(direction.size()) == n->size());
  double sum = 0;
  for (int64_t i = 0; i < n->size(); ++i) {
    sum +=
        static_cast<double>(n->value[i]) * static_cast<double>(direction[static_cast<size_t>(i)]);
  }
  if (recording())
    loops_.axpy(n->size(), static_cast<T>(weight), direction.data(), gradient_of(node(y)));
  return sum;
}

template class Tape<float>;
template class Tape<double>;

}  // namespace carat::train
