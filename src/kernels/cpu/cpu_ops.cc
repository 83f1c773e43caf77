#include "kernels/cpu/cpu_ops.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/cpu_ops_impl.h"
#include "kernels/scalar/rope.h"
#include "quant/coded_rows.h"
#include "quant/scheme.h"

namespace carat::kernels {
namespace {

// About what one element of a pointwise op costs, in multiply-adds.
constexpr int64_t kElementCost = 2;
constexpr int64_t kTranscendentalCost = 16;

constexpr size_t kTurnsKept = 6;

bool is_aligned_float(const std::byte* p) {
  return reinterpret_cast<uintptr_t>(p) % alignof(float) == 0;
}

// The scales that belong to columns [col_begin, col_begin + cols) of a row of codes.
class RowScales {
 public:
  RowScales(const CodeScales& scales, int64_t row_cols, int64_t col_begin, int64_t cols)
      : scales_(scales) {
    if (scales.empty()) return;
    row_size_ = row_bytes(scales.dtype, ceil_div(row_cols, scales.columns));
    skip_ = row_bytes(scales.dtype, col_begin / scales.columns);
    n_ = ceil_div(cols, scales.columns);
  }
  // Of memory for read(): the scales, then their bytes.
  int64_t scratch_floats() const { return 2 * n_; }
  // Fills out[0, n).
  void read(int64_t row, float* out) const {
    auto* bytes = reinterpret_cast<std::byte*>(out + n_);
    const auto size = static_cast<size_t>(row_bytes(scales_.dtype, n_));
    scales_.file->read(scales_.offset + row * row_size_ + skip_, {bytes, size});
    quant::decode_row(scales_.dtype, bytes, out, n_);
  }

 private:
  const CodeScales& scales_;
  int64_t row_size_ = 0, skip_ = 0, n_ = 0;
};

}  // namespace

CpuOps::CpuOps(ThreadPool& pool, const KernelTable& table)
    : pool_(pool), table_(table), scratch_(static_cast<size_t>(pool.size())) {}

CpuOps::~CpuOps() {
  CHECK(live_values_ == 0);
  for (const Scratch& s : scratch_) buffers_.give(s.data, s.floats * 4);
}

Value CpuOps::make(int64_t rows, int64_t cols) {
  const auto bytes = checked_product({rows, cols, 4});
  CHECK(bytes.has_value());
  return std::allocate_shared<CpuValue>(PoolAllocator<CpuValue>(&buffers_), this, rows, cols);
}

void CpuOps::reserve_scratch(int64_t floats_per_thread) {
  for (Scratch& s : scratch_) {
    if (floats_per_thread <= s.floats) continue;
    buffers_.give(s.data, s.floats * 4);
    s = {};  // the memory may be refused
    s.data = static_cast<float*>(buffers_.take(floats_per_thread * 4));
    s.floats = floats_per_thread;
  }
}

float* CpuOps::scratch(int thread) noexcept { return scratch_[static_cast<size_t>(thread)].data; }

std::span<const float> CpuOps::view(const Value& x) const {
  return {cpu(x).data, static_cast<size_t>(cpu(x).size())};
}

const float* CpuOps::floats_of(const Weight& w) {
  CHECK(w.scales.empty());
  const int64_t n = w.count * w.rows * w.cols;
  if (w.data && w.dtype == DType::kF32 && is_aligned_float(w.data)) {
    return reinterpret_cast<const float*>(w.data);
  }
  params_.resize(static_cast<size_t>(n));
  if (w.data) {
    quant::decode_row(w.dtype, w.data, params_.data(), n);
  } else {
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(w.dtype, n)));
    w.file->read(w.file_offset, bytes);
    quant::decode_row(w.dtype, bytes.data(), params_.data(), n);
  }
  return params_.data();
}

// -- in and out ----------------------------------------------------------------------------------

Value CpuOps::input(int64_t rows, int64_t cols, std::span<const float> values) {
  Value y = make(rows, cols);
  CHECK(static_cast<int64_t>(values.size()) == cpu(y).size());
  std::copy(values.begin(), values.end(), cpu(y).data);
  return y;
}

void CpuOps::read(const Value& x, std::span<float> out) {
  const auto values = view(x);
  CHECK(out.size() == values.size());
  std::copy(values.begin(), values.end(), out.begin());
}

// -- rows ----------------------------------------------------------------------------------------

Value CpuOps::embed(const Weight& table, std::span<const int32_t> ids, int64_t col_begin,
                    int64_t cols, float scale) {
  const DTypeInfo& type = info(table.dtype);
  const bool coded = !table.scales.empty();
  CHECK(col_begin >= 0 && cols >= 0 && col_begin + cols <= table.cols);
  CHECK(col_begin % type.block_elements == 0 && cols % type.block_elements == 0);
  CHECK(table.file || (table.data && table.layout == Layout::kRows && !coded));
  CHECK(!coded || (table.scales.file && col_begin % table.scales.columns == 0));
  const int64_t n = static_cast<int64_t>(ids.size());
  for (int32_t id : ids) CHECK(id >= 0 && id < table.rows);
  Value y = make(n, cols);
  const int64_t skip = row_bytes(table.dtype, col_begin), length = row_bytes(table.dtype, cols);
  const bool mapped = table.data && table.layout == Layout::kRows && !coded;
  const RowScales scales(table.scales, table.cols, col_begin, cols);
  if (!mapped) reserve_scratch(ceil_div(length, 4) + scales.scratch_floats());
  float* out = cpu(y).data;
  spread(n, 1, cols * 8 + 4096, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t at = ids[static_cast<size_t>(t)] * table.row_size() + skip;
      const std::byte* row = nullptr;
      if (mapped) {
        row = table.data + at;
      } else {
        std::byte* bytes = reinterpret_cast<std::byte*>(scratch(thread));
        table.file->read(table.file_offset + at, {bytes, static_cast<size_t>(length)});
        row = bytes;
      }
      if (coded) {
        float* values = scratch(thread) + ceil_div(length, 4);
        scales.read(ids[static_cast<size_t>(t)], values);
        quant::decode_coded_row(table.dtype, row, values, table.scales.columns, cols,
                                out + t * cols);
      } else {
        quant::decode_row(table.dtype, row, out + t * cols, cols);
      }
      table_.scale(out + t * cols, cols, scale, out + t * cols);
    }
  });
  return y;
}

Value CpuOps::take_rows(const Value& x, std::span<const int32_t> rows) {
  Value y = make(static_cast<int64_t>(rows.size()), x->cols);
  float* out = cpu(y).data;
  for (int32_t row : rows) {
    CHECK(row >= 0 && row < x->rows);
    out = std::copy_n(cpu(x).data + row * x->cols, x->cols, out);
  }
  return y;
}

// -- arithmetic ----------------------------------------------------------------------------------

Value CpuOps::rms_norm(const Value& x, const Weight* w, int64_t group, float eps) {
  CHECK(group > 0 && x->cols % group == 0);
  CHECK(!w || w->rows * w->cols >= group);
  const float* weight = w ? floats_of(*w) : nullptr;
  Value y = make(x->rows, x->cols);
  const float* in = cpu(x).data;
  float* out = cpu(y).data;
  // What normalizes whole rows is mostly the left side of a product next: rounded here, it needs no
  // pass and no wait of its own.
  QuantizedRows& q = cpu(y).quantized;
  if (quantizes_ahead_ && group == x->cols && group % kActivationBlock == 0 && x->rows > 0) {
    q = take_quantized(x->rows, group);
  }
  spread(cpu(x).size() / group, 1, group * 2 * kElementCost, [&](int64_t begin, int64_t end, int) {
    table_.rms_norm(in + begin * group, weight, end - begin, group, eps, out + begin * group);
    if (q.codes) table_.quantize_rows(out + begin * group, row_range(q, begin, end - begin));
  });
  return y;
}

Value CpuOps::add_norm(const Value& x, const Value& y, const Weight& w, float eps) {
  CHECK(x->rows == y->rows && x->cols == y->cols && w.rows * w.cols == y->cols);
  const float* weight = floats_of(w);
  const int64_t cols = x->cols;
  Value z = make(x->rows, cols);
  const float *a = cpu(x).data, *b = cpu(y).data;
  float* out = cpu(z).data;
  spread(x->rows, 1, cols * kElementCost, [&](int64_t begin, int64_t end, int) {
    const int64_t at = begin * cols;
    table_.add_rms_norm(a + at, b + at, weight, end - begin, cols, eps, out + at);
  });
  return z;
}

const CpuOps::RopeTurns& CpuOps::turns_for(const Rope& rope, std::span<const RowRef> rows) {
  const auto matches = [&](const std::unique_ptr<RopeTurns>& t) {
    return t->positions.size() == rows.size() && t->inverse_frequency == rope.inverse_frequency &&
           std::equal(rows.begin(), rows.end(), t->positions.begin(),
                      [](const RowRef& r, int32_t p) { return r.position == p; });
  };
  auto found = std::find_if(turns_.begin(), turns_.end(), matches);
  if (found == turns_.end()) {
    if (turns_.size() < kTurnsKept) turns_.push_back(std::make_unique<RopeTurns>());
    found = turns_.end() - 1;
    RopeTurns& t = **found;
    t.inverse_frequency = rope.inverse_frequency;
    t.positions.clear();
    for (const RowRef& r : rows) t.positions.push_back(r.position);
    t.n_pairs = static_cast<int64_t>(rope.inverse_frequency.size());
    while (t.n_pairs > 0 && rope.inverse_frequency[static_cast<size_t>(t.n_pairs - 1)] == 0.0f) {
      --t.n_pairs;
    }
    const int64_t n = static_cast<int64_t>(rows.size());
    t.cos.resize(static_cast<size_t>(n * t.n_pairs));
    t.sin.resize(static_cast<size_t>(n * t.n_pairs));
    spread(n, 1, t.n_pairs * 64, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        scalar::rope_turns(t.positions[static_cast<size_t>(i)], t.inverse_frequency.data(),
                           t.n_pairs, t.cos.data() + i * t.n_pairs, t.sin.data() + i * t.n_pairs);
      }
    });
  }
  std::rotate(turns_.begin(), found, found + 1);
  return *turns_.front();
}

Value CpuOps::rope(const Value& x, const Rope& rope, std::span<const RowRef> rows) {
  const int64_t head_dim = rope.head_dim;
  CHECK(head_dim > 0 && x->cols % head_dim == 0);
  CHECK(static_cast<int64_t>(rows.size()) == x->rows);
  CHECK(static_cast<int64_t>(rope.inverse_frequency.size()) * 2 == head_dim);
  const RopeTurns& turns = turns_for(rope, rows);
  const int64_t cols = x->cols, n_pairs = turns.n_pairs;
  Value y = make(x->rows, cols);
  const float* in = cpu(x).data;
  float* out = cpu(y).data;
  spread(x->rows, 1, cols * kElementCost, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      table_.rope(in + t * cols, turns.cos.data() + t * n_pairs, turns.sin.data() + t * n_pairs,
                  n_pairs, cols / head_dim, head_dim, out + t * cols);
    }
  });
  return y;
}

Value CpuOps::add(const Value& a, const Value& b) {
  CHECK(a->rows == b->rows && a->cols == b->cols);
  Value y = make(a->rows, a->cols);
  const float *p = cpu(a).data, *q = cpu(b).data;
  float* out = cpu(y).data;
  spread(cpu(a).size(), 64, kElementCost, [&](int64_t begin, int64_t end, int) {
    table_.add(p + begin, q + begin, end - begin, out + begin);
  });
  return y;
}

Value CpuOps::scale(const Value& x, float factor) {
  Value y = make(x->rows, x->cols);
  const float* in = cpu(x).data;
  float* out = cpu(y).data;
  spread(cpu(x).size(), 64, kElementCost, [&](int64_t begin, int64_t end, int) {
    table_.scale(in + begin, end - begin, factor, out + begin);
  });
  return y;
}

Value CpuOps::scale_by(const Value& x, const Weight& scalar) {
  CHECK(scalar.rows * scalar.cols == 1);
  return scale(x, *floats_of(scalar));
}

Value CpuOps::geglu(const Value& gate, const Value& up) {
  CHECK(gate->rows == up->rows && gate->cols == up->cols);
  Value y = make(gate->rows, gate->cols);
  const float *g = cpu(gate).data, *u = cpu(up).data;
  float* out = cpu(y).data;
  spread(cpu(gate).size(), 64, kTranscendentalCost, [&](int64_t begin, int64_t end, int) {
    table_.geglu(g + begin, u + begin, end - begin, out + begin);
  });
  return y;
}

Value CpuOps::softcap(const Value& x, float cap) {
  Value y = make(x->rows, x->cols);
  const float* in = cpu(x).data;
  float* out = cpu(y).data;
  spread(cpu(x).size(), 64, kTranscendentalCost, [&](int64_t begin, int64_t end, int) {
    table_.softcap(in + begin, end - begin, cap, out + begin);
  });
  return y;
}

}  // namespace carat::kernels
