// Attention of CpuOps over int8 pages, in integers; those of int4 are unpacked to int8, a head of a
// page at a time. Queries are rounded once for the whole call. A
// unit (some rows of one sequence, one K/V head) goes to one thread, all its segments in order. If
// that would leave threads idle (decode), each wave of segments is worked on in two steps instead:
// scores and weights, shared out by segment; then the values, shared out by elements of the head,
// so that every thread joins its own slice in ascending segment order and no partial vector is ever
// stored. Both ways give the same bits.
#include <limits>
#include <utility>

#include "kernels/cpu/cpu_attention.h"
#include "kernels/kv_rotation.h"

namespace carat::kernels {
namespace {

// Codes of a wave of segments take at most about this many bytes.
constexpr int64_t kWaveBytes = int64_t{1} << 20;
constexpr int64_t kLeastSlice = 64;  // elements of a head

// What is kept of each query while segments are joined.
struct Totals {
  float* vectors;  // [n, dim]
  float* max;
  float* sum;

  void begin(int64_t n, int64_t dim) const {
    std::fill_n(vectors, n * dim, 0.0f);
    begin_weights(n);
  }
  void begin_weights(int64_t n) const {
    std::fill_n(max, n, -std::numeric_limits<float>::infinity());
    std::fill_n(sum, n, 0.0f);
  }
};

// What one segment gives to each query.
struct SegmentWeights {
  CodeRows p;
  float *max, *sum, *keep, *take;
};

CodeRows from(const CodeRows& rows, int64_t i) {
  return {rows.codes + i * rows.stride, rows.stride, rows.scales + i, rows.sums + i};
}

// Hands out parts of one block of memory.
class Carver {
 public:
  explicit Carver(float* at) : at_(at) {}
  float* floats(int64_t n) { return std::exchange(at_, at_ + round_up(n, 16)); }
  CodeRows code_rows(int64_t n, int64_t stride) {
    CodeRows rows;
    rows.codes = reinterpret_cast<int16_t*>(floats(ceil_div(n * stride, 2)));
    rows.stride = stride;
    rows.scales = floats(n);
    rows.sums = reinterpret_cast<int32_t*>(floats(n));
    return rows;
  }
  SegmentWeights weights(int64_t n) {
    SegmentWeights w;
    w.p = code_rows(n, kKvPageTokens);
    for (float** x : {&w.max, &w.sum, &w.keep, &w.take}) *x = floats(n);
    return w;
  }
  Totals totals(int64_t n, int64_t dim) {
    Totals t;
    t.vectors = floats(n * dim);
    t.max = floats(n);
    t.sum = floats(n);
    return t;
  }

 private:
  float* at_;
};

constexpr int64_t kPerQuery = kKvPageTokens / 2 + 6;

int64_t floats_for_weights(int64_t n) { return round_up(n, 16) * kPerQuery; }
int64_t floats_for_totals(int64_t n, int64_t dim) { return round_up(n * dim, 16) + n * 2 + 32; }

}  // namespace

class CpuOps::CodeAttention {
 public:
  CodeAttention(CpuOps& ops, const CpuValue& q, CpuValue& out, const AttentionCall& call)
      : ops_(ops),
        table_(ops.table_),
        out_(out),
        call_(call),
        rows_(q.rows),
        dim_(call.head_dim),
        group_(call.n_heads / call.n_kv_heads),
        type_(call.sequences[static_cast<size_t>(call.q_rows.front().sequence)].type) {
    const int64_t n = rows_ * call.n_heads, stride = round_up(dim_, 16);
    memory_ = ops.make(1, n * stride / 2 + 2 * n + 48);
    q_ = Carver(cpu(memory_).data).code_rows(n, stride);
    ops.spread(rows_, 1, q.cols * 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t h = 0; h < call.n_kv_heads; ++h) {
          round_queries(q.data + t * q.cols + h * group_ * dim_, query_of(t, h));
        }
      }
    });
  }

  void by_units();
  void by_segments();
  // What rotated values add up to is turned back.
  void finish();

 private:
  struct Task {
    int64_t unit, segment;
  };

  // Queries lie by K/V head, then by row.
  int64_t query_of(int64_t row, int64_t kv_head) const { return (kv_head * rows_ + row) * group_; }
  int64_t first_query(const AttentionUnit& u) const { return query_of(u.row_begin, u.kv_head); }
  int64_t n_queries(const AttentionUnit& u) const { return (u.row_end - u.row_begin) * group_; }

  void round_queries(const float* q, int64_t query) const noexcept;

  // K or V of a head of a page in the form of int8 pages: where it lies or, of int4, unpacked into
  // the thread's panel of panel_floats().
  struct Codes {
    const uint8_t* data = nullptr;
    const uint8_t* next = nullptr;  // to fetch ahead while data is read, or null
    const float* scale = nullptr;   // [kKvPageTokens]
  };
  Codes open_keys(const AttentionUnit& unit, int64_t segment, float* panel) const noexcept;
  // From element dims.begin, a multiple of 32, on.
  Codes open_values(const AttentionUnit& unit, int64_t segment, KeyRange dims,
                    float* panel) const noexcept;
  // The page after this one; pointers are null if there is none.
  PageHead next_page(const AttentionUnit& unit, int64_t segment) const {
    const bool is_last = segment + 1 >= unit.segment_end();
    if (is_last || !unit.cache->pages[static_cast<size_t>(segment + 1)]) return {};
    return page_head(*unit.cache, segment + 1, unit.kv_head);
  }
  int64_t panel_floats() const {
    return is_kv4(type_) ? kv_stored_dim(type_, dim_) * kKvPageTokens / 4 : 0;
  }

  // f(query, n) for runs of the unit's queries, numbered from its first, that see the segment.
  template <class F>
  void for_runs(const AttentionUnit& unit, int64_t segment, F&& f) const {
    int64_t begin = unit.row_begin;
    for (int64_t row = begin; row <= unit.row_end; ++row) {
      if (row < unit.row_end && !is_empty(seen_by(row, segment))) continue;
      if (row > begin) f((begin - unit.row_begin) * group_, (row - begin) * group_);
      begin = row + 1;
    }
  }
  KeyRange seen_by(int64_t row, int64_t segment) const {
    const int64_t position = call_.q_rows[static_cast<size_t>(row)].position;
    return intersect(visible_keys(position, call_.window), segment);
  }
  static bool is_empty(KeyRange r) { return r.begin >= r.end; }

  void weigh(const AttentionUnit& unit, int64_t segment, float* panel,
             const SegmentWeights& w) const noexcept;
  void add_values(const AttentionUnit& unit, int64_t segment, float* panel, const SegmentWeights& w,
                  KeyRange dims, float* totals) const noexcept;
  void attend_unit(const AttentionUnit& unit, float* panel, const SegmentWeights& w,
                   const Totals& t) noexcept;
  void write(const AttentionUnit& unit, KeyRange dims, const Totals& t) noexcept;

  std::vector<Task> make_tasks() const;
  void weigh_wave(std::span<const Task> wave, int64_t stride, const SegmentWeights& w);
  void join_wave(std::span<const Task> wave, int64_t stride, const SegmentWeights& w,
                 const Totals& t);

  CpuOps& ops_;
  const KernelTable& table_;
  CpuValue& out_;
  const AttentionCall& call_;
  int64_t rows_, dim_, group_;
  KvType type_;
  Value memory_;
  CodeRows q_;
};

namespace {

SegmentWeights from(const SegmentWeights& w, int64_t i) {
  return {from(w.p, i), w.max + i, w.sum + i, w.keep + i, w.take + i};
}
Totals from(const Totals& t, int64_t i, int64_t dim) {
  return {t.vectors + i * dim, t.max + i, t.sum + i};
}

}  // namespace

// The queries of a K/V head in one row.
void CpuOps::CodeAttention::round_queries(const float* q, int64_t query) const noexcept {
  if (type_ != KvType::kI4R) return table_.round_rows(q, group_, dim_, from(q_, query));
  float rotated[kMaxHeadDim];
  for (int64_t i = 0; i < group_; ++i) {
    rotate(q + i * dim_, dim_, rotated);
    table_.round_rows(rotated, 1, dim_, from(q_, query + i));
  }
}

CpuOps::CodeAttention::Codes CpuOps::CodeAttention::open_keys(const AttentionUnit& unit,
                                                              int64_t segment,
                                                              float* panel) const noexcept {
  const PageHead p = page_head(*unit.cache, segment, unit.kv_head);
  const auto* codes = reinterpret_cast<const uint8_t*>(p.k);
  const auto* next = reinterpret_cast<const uint8_t*>(next_page(unit, segment).k);
  if (!is_kv4(type_)) return {codes, next, p.k_scale};
  auto* unpacked = reinterpret_cast<uint8_t*>(panel);
  table_.unpack_k4(codes, p.k_blocks, kv_stored_dim(type_, dim_), next, unpacked);
  return {unpacked, nullptr, p.k_scale};
}

CpuOps::CodeAttention::Codes CpuOps::CodeAttention::open_values(const AttentionUnit& unit,
                                                                int64_t segment, KeyRange dims,
                                                                float* panel) const noexcept {
  const PageHead p = page_head(*unit.cache, segment, unit.kv_head);
  const int64_t at = is_kv4(type_) ? v_pair_at(dims.begin, 0) : v_code_at(dims.begin, 0);
  const auto* codes = reinterpret_cast<const uint8_t*>(p.v) + at;
  const auto* next = reinterpret_cast<const uint8_t*>(next_page(unit, segment).v);
  if (next) next += at;
  if (!is_kv4(type_)) return {codes, next, p.v_scale};
  auto* unpacked = reinterpret_cast<uint8_t*>(panel);
  table_.unpack_v4(codes, p.v_blocks + dims.begin / kKv4Block * kKvPageTokens,
                   kv_stored_dim(type_, dims.end - dims.begin), next, unpacked);
  return {unpacked, nullptr, p.v_scale};
}

// The queries of the unit that see the segment; w is that of the unit's first query.
void CpuOps::CodeAttention::weigh(const AttentionUnit& unit, int64_t segment, float* panel,
                                  const SegmentWeights& w) const noexcept {
  constexpr int64_t kAtOnce = 64;
  Places seen[kAtOnce];
  Codes keys;
  for_runs(unit, segment, [&](int64_t query, int64_t n) {
    if (!keys.data) keys = open_keys(unit, segment, panel);
    const float* v_scale = page_head(*unit.cache, segment, unit.kv_head).v_scale;
    const CodePage page{keys.data, nullptr, keys.scale, v_scale};
    for (const int64_t end = query + n; query < end; query += kAtOnce) {
      const int64_t count = std::min(kAtOnce, end - query);
      for (int64_t i = 0; i < count; ++i) {
        const KeyRange r = seen_by(unit.row_begin + (query + i) / group_, segment);
        seen[i] = {static_cast<int32_t>(r.begin - segment * kKvPageTokens),
                   static_cast<int32_t>(r.end - segment * kKvPageTokens)};
      }
      const SegmentWeights here = from(w, query);
      table_.weigh_codes(from(q_, first_query(unit) + query), count, page, seen, dim_, keys.next,
                         here.p, here.max, here.sum);
      keys.next = nullptr;
    }
  });
}

// Joins elements `dims` of the segment's values; w and totals are those of the unit's first query.
void CpuOps::CodeAttention::add_values(const AttentionUnit& unit, int64_t segment, float* panel,
                                       const SegmentWeights& w, KeyRange dims,
                                       float* totals) const noexcept {
  Codes values;
  for_runs(unit, segment, [&](int64_t query, int64_t n) {
    if (!values.data) values = open_values(unit, segment, dims, panel);
    const SegmentWeights here = from(w, query);
    table_.join_values(here.p, n, values.data, dims.end - dims.begin, values.next, here.keep,
                       here.take, totals + query * dim_ + dims.begin, dim_);
    values.next = nullptr;
  });
}

// Divides elements `dims` by the sums of the weights and stores them as the result.
void CpuOps::CodeAttention::write(const AttentionUnit& unit, KeyRange dims,
                                  const Totals& t) noexcept {
  const int64_t n = n_queries(unit), width = dims.end - dims.begin;
  for (int64_t i = 0; i < n; ++i) {
    float* vector = t.vectors + i * dim_ + dims.begin;
    table_.finish(vector, t.sum + i, 1, width);
    const int64_t row = unit.row_begin + i / group_, head = unit.kv_head * group_ + i % group_;
    std::copy_n(vector, width, out_.data + row * out_.cols + head * dim_ + dims.begin);
  }
}

void CpuOps::CodeAttention::attend_unit(const AttentionUnit& unit, float* panel,
                                        const SegmentWeights& w, const Totals& t) noexcept {
  t.begin(n_queries(unit), dim_);
  for (int64_t s = unit.segment_begin(); s < unit.segment_end(); ++s) {
    weigh(unit, s, panel, w);
    for_runs(unit, s, [&](int64_t query, int64_t n) {
      const SegmentWeights here = from(w, query);
      table_.join_weights(t.max + query, t.sum + query, here.max, here.sum, n, here.keep,
                          here.take);
    });
    add_values(unit, s, panel, w, {0, dim_}, t.vectors);
  }
  write(unit, {0, dim_}, t);
}

void CpuOps::CodeAttention::by_units() {
  int64_t n = 0;
  for (const AttentionUnit& u : ops_.units_) n = std::max(n, n_queries(u));
  ops_.reserve_scratch(floats_for_weights(n) + floats_for_totals(n, dim_) + panel_floats());
  ops_.pool_.parallel_for(static_cast<int64_t>(ops_.units_.size()), 1,
                          [&](int64_t begin, int64_t end, int thread) {
                            Carver carver(ops_.scratch(thread));
                            float* panel = carver.floats(panel_floats());
                            const SegmentWeights w = carver.weights(n);
                            const Totals t = carver.totals(n, dim_);
                            for (int64_t i = begin; i < end; ++i)
                              attend_unit(ops_.units_[static_cast<size_t>(i)], panel, w, t);
                          });
}

std::vector<CpuOps::CodeAttention::Task> CpuOps::CodeAttention::make_tasks() const {
  std::vector<Task> tasks;
  for (size_t i = 0; i < ops_.units_.size(); ++i) {
    const AttentionUnit& u = ops_.units_[i];
    for (int64_t s = u.segment_begin(); s < u.segment_end(); ++s) {
      tasks.push_back({static_cast<int64_t>(i), s});
    }
  }
  return tasks;
}

// stride: queries of w from one task to the next.
void CpuOps::CodeAttention::weigh_wave(std::span<const Task> wave, int64_t stride,
                                       const SegmentWeights& w) {
  const int64_t cost = stride * dim_ * kKvPageTokens;
  ops_.spread(static_cast<int64_t>(wave.size()), 1, cost,
              [&](int64_t begin, int64_t end, int thread) {
                for (int64_t i = begin; i < end; ++i) {
                  const Task& task = wave[static_cast<size_t>(i)];
                  const AttentionUnit& unit = ops_.units_[static_cast<size_t>(task.unit)];
                  weigh(unit, task.segment, ops_.scratch(thread), from(w, i * stride));
                }
              });
}

void CpuOps::CodeAttention::join_wave(std::span<const Task> wave, int64_t stride,
                                      const SegmentWeights& w, const Totals& t) {
  for (size_t i = 0; i < wave.size(); ++i) {
    const AttentionUnit& unit = ops_.units_[static_cast<size_t>(wave[i].unit)];
    const SegmentWeights here = from(w, static_cast<int64_t>(i) * stride);
    const Totals total = from(t, first_query(unit), dim_);
    if (wave[i].segment == unit.segment_begin()) total.begin_weights(n_queries(unit));
    for_runs(unit, wave[i].segment, [&](int64_t query, int64_t n) {
      table_.join_weights(total.max + query, total.sum + query, here.max + query, here.sum + query,
                          n, here.keep + query, here.take + query);
    });
  }

  const int64_t first_unit = wave.front().unit, units = wave.back().unit - first_unit + 1;
  const int64_t wanted = std::min(ceil_div(2 * ops_.pool_.size(), units), dim_ / kLeastSlice);
  const int64_t width = round_up(ceil_div(dim_, std::max<int64_t>(1, wanted)), 32);
  const int64_t slices = ceil_div(dim_, width);
  const auto first_task = [&](int64_t unit) {
    return std::lower_bound(wave.begin(), wave.end(), unit,
                            [](const Task& task, int64_t u) { return task.unit < u; });
  };
  const int64_t cost = static_cast<int64_t>(wave.size()) * stride * width * kKvPageTokens / units;
  ops_.spread(units * slices, 1, cost, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t u = first_unit + i / slices, d = i % slices * width;
      const KeyRange dims{d, std::min(dim_, d + width)};
      const AttentionUnit& unit = ops_.units_[static_cast<size_t>(u)];
      const Totals total = from(t, first_query(unit), dim_);
      for (auto task = first_task(u); task != wave.end() && task->unit == u; ++task) {
        if (task->segment == unit.segment_begin()) {
          for (int64_t q = 0; q < n_queries(unit); ++q) {
            std::fill_n(total.vectors + q * dim_ + d, dims.end - d, 0.0f);
          }
        }
        const SegmentWeights here = from(w, (task - wave.begin()) * stride);
        add_values(unit, task->segment, ops_.scratch(thread), here, dims, total.vectors);
        if (task->segment + 1 == unit.segment_end()) write(unit, dims, total);
      }
    }
  });
}

void CpuOps::CodeAttention::by_segments() {
  const std::vector<Task> tasks = make_tasks();
  int64_t stride = 0;
  for (const AttentionUnit& u : ops_.units_) stride = std::max(stride, n_queries(u));
  const int64_t n_tasks = static_cast<int64_t>(tasks.size());
  const int64_t wave = std::min(
      n_tasks, std::max<int64_t>(ops_.pool_.size(), kWaveBytes / (stride * kPerQuery * 4)));
  const int64_t n = rows_ * call_.n_heads;
  const Value memory = ops_.make(1, floats_for_weights(wave * stride) + floats_for_totals(n, dim_));
  Carver carver(cpu(memory).data);
  const SegmentWeights w = carver.weights(wave * stride);
  const Totals t = carver.totals(n, dim_);
  ops_.reserve_scratch(panel_floats());
  for (int64_t done = 0; done < n_tasks; done += wave) {
    const std::span<const Task> part = std::span(tasks).subspan(
        static_cast<size_t>(done), static_cast<size_t>(std::min(wave, n_tasks - done)));
    weigh_wave(part, stride, w);
    join_wave(part, stride, w, t);
  }
}

void CpuOps::CodeAttention::finish() {
  if (type_ != KvType::kI4R) return;
  ops_.spread(rows_, 1, out_.cols * 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin * out_.cols; at < end * out_.cols; at += dim_) {
      rotate_back(out_.data + at, dim_, out_.data + at);
    }
  });
}

void CpuOps::attend_codes(const CpuValue& q, CpuValue& out, const AttentionCall& call) {
  CodeAttention attention(*this, q, out, call);
  if (split_segments()) {
    attention.by_segments();
  } else {
    attention.by_units();
  }
  attention.finish();
}

}  // namespace carat::kernels
