// Attention of CpuOps: K and V into pages, then segments of float pages against the query rows that
// read them (pages of codes: cpu_code_attention.cc). Work is cut into units (a few query rows of
// one sequence, one K/V head), so that a page is turned into floats once for all their rows and
// heads. With too few units for the threads (decode) the segments of a unit are shared out instead;
// the partial results are joined in the same order, so both ways give the same bits.
#include "kernels/cpu/cpu_attention.h"

#include <cstring>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/kv_rotation.h"
#include "kernels/scalar/kv4.h"

namespace carat::kernels {
namespace {

constexpr int64_t kUnitRows = 16;
// A unit over pages of codes has about this many queries (rows times heads of a group).
constexpr int64_t kUnitQueries = 128;
// Partial results of a wave of segments take at most about this many floats.
constexpr int64_t kWaveFloats = int64_t{1} << 21;

// scale > 0: rounded to its multiples first.
void store_floats(const KernelTable& table, KvType type, const float* x, int64_t n, float scale,
                  int64_t place, std::byte* base) {
  float rounded[kMaxHeadDim];
  if (scale > 0) {
    table.static_round(x, n, scale, rounded);
    x = rounded;
  }
  switch (type) {
    case KvType::kF32:
      std::memcpy(base + place * n * 4, x, static_cast<size_t>(n) * 4);
      break;
    case KvType::kF16:
      table.to_f16(x, n, reinterpret_cast<uint16_t*>(base) + place * n);
      break;
    default:
      break;
  }
}

// Codes + 128 at their places of an int8 page (kv_pages.h). scale > 0: the codes' scale, else they
// get one of their own.
void store_codes(const KernelTable& table, const float* x, int64_t n, float scale, int64_t place,
                 std::byte* base, float* scales, bool is_key) {
  int8_t codes[kMaxHeadDim];
  if (scale > 0) {
    int32_t sum;
    scales[place] = table.static_codes(x, n, scale, codes, &sum);
  } else {
    table.to_i8(x, n, codes, scales + place);
  }
  for (int64_t d = 0; d < n; ++d) {
    base[is_key ? k_code_at(d, place) : v_code_at(d, place)] =
        static_cast<std::byte>(codes[d] + 128);
  }
}

// Half bytes at their places of an int4 page. The two elements of a byte belong to the same place,
// so that rows can be stored at the same time.
void store_halves(KvType type, const float* x, int64_t n, int64_t place, std::byte* base,
                  uint8_t* blocks, float* scales, bool is_key) {
  float rotated[kMaxHeadDim];
  if (type == KvType::kI4R) {
    rotate(x, n, rotated);
    x = rotated;
  }
  uint8_t halves[kMaxHeadDim], block[kMaxHeadDim / kKv4Block];
  scales[place] = scalar::kv4_encode(x, n, halves, block);
  const int64_t dim = kv_stored_dim(type, n), apart = is_key ? 4 : 16;
  for (int64_t begin = 0; begin < dim; begin += 2 * apart) {
    for (int64_t d = begin; d < begin + apart; ++d) {
      base[is_key ? k_pair_at(d, place) : v_pair_at(d, place)] =
          static_cast<std::byte>(halves[d] | halves[d + apart] << 4);
    }
  }
  for (int64_t b = 0; b < dim / kKv4Block; ++b) blocks[b * kKvPageTokens + place] = block[b];
}

// Vectors [begin, begin + n) of a head as floats: in place, or written to `panel`.
const float* load_vectors(const KernelTable& table, KvType type, const std::byte* base,
                          int64_t begin, int64_t n, int64_t head_dim, float* panel) {
  switch (type) {
    case KvType::kF32:
      return reinterpret_cast<const float*>(base) + begin * head_dim;
    case KvType::kF16:
      table.from_f16(reinterpret_cast<const uint16_t*>(base) + begin * head_dim, n * head_dim,
                     panel);
      return panel;
    default:
      break;
  }
  return nullptr;
}

// `keys` narrowed to positions [range.begin, range.end); loaded is the position of its key 0.
KeySegment narrow(const KeySegment& keys, int64_t loaded, KeyRange range, int64_t head_dim) {
  const int64_t skip = range.begin - loaded;
  return {.k = keys.k + skip * head_dim,
          .v = keys.v + skip * head_dim,
          .first = range.begin % kKvPageTokens,
          .n = range.end - range.begin};
}

}  // namespace

void CpuOps::store_kv(const CpuValue& k, const CpuValue& v, const AttentionCall& call) {
  const int64_t dim = call.head_dim, heads = call.n_kv_heads;
  CHECK(k.rows == static_cast<int64_t>(call.kv_rows.size()) && v.rows == k.rows);
  CHECK(k.cols == heads * dim && v.cols == k.cols);
  spread(k.rows, 1, k.cols * 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const RowRef row = call.kv_rows[static_cast<size_t>(t)];
      const KvLayer& cache = call.sequences[static_cast<size_t>(row.sequence)];
      const int64_t page = row.position / kKvPageTokens, place = row.position % kKvPageTokens;
      CHECK(cache.head_dim == dim && cache.n_kv_heads == heads);
      CHECK(!is_kv4(cache.type) || (call.k_scale == 0 && call.v_scale == 0));
      CHECK(page < static_cast<int64_t>(cache.pages.size()) &&
            cache.pages[static_cast<size_t>(page)]);
      for (int64_t h = 0; h < heads; ++h) {
        const PageHead p = page_head(cache, page, h);
        const float *key = k.data + t * k.cols + h * dim, *value = v.data + t * k.cols + h * dim;
        if (is_kv4(cache.type)) {
          store_halves(cache.type, key, dim, place, p.k, p.k_blocks, p.k_scale, true);
          store_halves(cache.type, value, dim, place, p.v, p.v_blocks, p.v_scale, false);
        } else if (cache.type == KvType::kI8) {
          store_codes(table_, key, dim, call.k_scale, place, p.k, p.k_scale, true);
          store_codes(table_, value, dim, call.v_scale, place, p.v, p.v_scale, false);
        } else {
          store_floats(table_, cache.type, key, dim, call.k_scale, place, p.k);
          store_floats(table_, cache.type, value, dim, call.v_scale, place, p.v);
        }
      }
    }
  });
}

void CpuOps::plan_attention(const AttentionCall& call, int64_t unit_rows) {
  units_.clear();
  const int64_t n = static_cast<int64_t>(call.q_rows.size());
  for (int64_t begin = 0, end; begin < n; begin = end) {
    const int32_t sequence = call.q_rows[static_cast<size_t>(begin)].sequence;
    KeyRange keys{INT64_MAX, 0};
    for (end = begin; end < n && end < begin + unit_rows; ++end) {
      const RowRef row = call.q_rows[static_cast<size_t>(end)];
      if (row.sequence != sequence) break;
      const KeyRange seen = visible_keys(row.position, call.window);
      keys = {std::min(keys.begin, seen.begin), std::max(keys.end, seen.end)};
    }
    const KvLayer& cache = call.sequences[static_cast<size_t>(sequence)];
    CHECK(cache.head_dim == call.head_dim && cache.n_kv_heads == call.n_kv_heads);
    CHECK(cache.type == call.sequences[static_cast<size_t>(call.q_rows.front().sequence)].type);
    CHECK(ceil_div(keys.end, kKvPageTokens) <= static_cast<int64_t>(cache.pages.size()));
    for (int64_t h = 0; h < call.n_kv_heads; ++h) {
      units_.push_back({begin, end, h, keys.begin, keys.end, &cache});
    }
  }
  // The longest first, so that threads end together.
  std::stable_sort(units_.begin(), units_.end(),
                   [](const auto& a, const auto& b) { return a.cost() > b.cost(); });
}

// Whether whole units would leave threads waiting for the one with the longest.
bool CpuOps::split_segments() const {
  int64_t all = 0;
  for (const AttentionUnit& u : units_) all += u.cost();
  return pool_.size() > 1 && units_.front().cost() * pool_.size() * 4 > all;
}

// The keys of one segment that any row of the unit sees, none (n = 0) if all look elsewhere.
// panel: 2 * kKvPageTokens * head_dim floats.
KeySegment CpuOps::load_segment(const AttentionUnit& unit, const AttentionCall& call,
                                int64_t segment, float* panel) const noexcept {
  KeyRange keys{INT64_MAX, 0};
  for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
    const RowRef& ref = call.q_rows[static_cast<size_t>(row)];
    const KeyRange here = intersect(visible_keys(ref.position, call.window), segment);
    if (here.begin >= here.end) continue;
    keys = {std::min(keys.begin, here.begin), std::max(keys.end, here.end)};
  }
  if (keys.begin >= keys.end) return {};
  const int64_t first = keys.begin % kKvPageTokens, n = keys.end - keys.begin;
  const PageHead p = page_head(*unit.cache, segment, unit.kv_head);
  const KvType type = unit.cache->type;
  KeySegment s{.first = first, .n = n};
  s.k = load_vectors(table_, type, p.k, first, n, call.head_dim, panel);
  s.v = load_vectors(table_, type, p.v, first, n, call.head_dim,
                     panel + kKvPageTokens * call.head_dim);
  return s;
}

// Each unit by one thread, all its segments in order.
void CpuOps::attend_units(const CpuValue& q, CpuValue& out, const AttentionCall& call) {
  const int64_t dim = call.head_dim, group = call.n_heads / call.n_kv_heads;
  const int64_t panel = 2 * kKvPageTokens * dim;
  reserve_scratch(panel + group * (kKvPageTokens + dim + 2) + kUnitRows * group * 2);
  const int64_t n_units = static_cast<int64_t>(units_.size());
  pool_.parallel_for(n_units, 1, [&](int64_t begin, int64_t end, int thread) {
    float* weights = scratch(thread) + panel;
    float* vectors = weights + group * kKvPageTokens;
    float* max = vectors + group * dim;
    float* sum = max + group;
    float* total_max = sum + group;
    float* total_sum = total_max + kUnitRows * group;
    for (int64_t i = begin; i < end; ++i) {
      const AttentionUnit& unit = units_[static_cast<size_t>(i)];
      for (int64_t s = unit.segment_begin(); s < unit.segment_end(); ++s) {
        const KeySegment loaded = load_segment(unit, call, s, scratch(thread));
        const int64_t loaded_begin = s * kKvPageTokens + loaded.first;
        for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
          const KeyRange seen =
              visible_keys(call.q_rows[static_cast<size_t>(row)].position, call.window);
          const KeyRange here = intersect(seen, s);
          if (here.begin >= here.end) continue;
          const KeySegment part = narrow(loaded, loaded_begin, here, dim);
          const int64_t at = row * q.cols + unit.kv_head * group * dim;
          const int64_t total = (row - unit.row_begin) * group;
          if (s == seen.begin / kKvPageTokens) {
            table_.attend(q.data + at, group, part, dim, weights, total_max + total,
                          total_sum + total, out.data + at);
          } else {
            table_.attend(q.data + at, group, part, dim, weights, max, sum, vectors);
            table_.join(total_max + total, total_sum + total, out.data + at, max, sum, vectors,
                        group, dim);
          }
        }
      }
      for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
        table_.finish(out.data + row * q.cols + unit.kv_head * group * dim,
                      total_sum + (row - unit.row_begin) * group, group, dim);
      }
    }
  });
}

// The segments of all units shared out in waves; after each wave its partials are joined.
void CpuOps::attend_split(const CpuValue& q, CpuValue& out, const AttentionCall& call) {
  const int64_t dim = call.head_dim, group = call.n_heads / call.n_kv_heads;
  const int64_t panel = 2 * kKvPageTokens * dim;
  reserve_scratch(panel + group * kKvPageTokens);

  struct Task {
    int64_t unit, segment;
  };
  std::vector<Task> tasks;
  int64_t most_rows = 0, keys = 0;
  for (size_t i = 0; i < units_.size(); ++i) {
    const AttentionUnit& u = units_[i];
    most_rows = std::max(most_rows, u.row_end - u.row_begin);
    keys += u.cost();
    for (int64_t s = u.segment_begin(); s < u.segment_end(); ++s) {
      tasks.push_back({static_cast<int64_t>(i), s});
    }
  }
  const int64_t n_tasks = static_cast<int64_t>(tasks.size());
  const int64_t cost = keys * group * dim * 2 / n_tasks;

  // Per task and row: max [group], sum [group], vectors [group, dim].
  const int64_t row_floats = group * (dim + 2), task_floats = most_rows * row_floats;
  const int64_t wave =
      std::min(n_tasks, std::max<int64_t>(pool_.size(), kWaveFloats / task_floats));
  Value partials = make(wave, task_floats), totals = make(call.n_kv_heads * q.rows, 2 * group);

  const auto seen_in = [&](int64_t row, int64_t segment, bool* first) {
    const KeyRange seen = visible_keys(call.q_rows[static_cast<size_t>(row)].position, call.window);
    *first = segment == seen.begin / kKvPageTokens;
    return intersect(seen, segment);
  };
  for (int64_t done = 0; done < n_tasks; done += wave) {
    const int64_t n = std::min(wave, n_tasks - done);
    spread(n, 1, cost, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        const Task& task = tasks[static_cast<size_t>(done + i)];
        const AttentionUnit& unit = units_[static_cast<size_t>(task.unit)];
        const KeySegment loaded = load_segment(unit, call, task.segment, scratch(thread));
        const int64_t loaded_begin = task.segment * kKvPageTokens + loaded.first;
        for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
          bool first;
          const KeyRange here = seen_in(row, task.segment, &first);
          if (here.begin >= here.end) continue;
          float* part = cpu(partials).data + i * task_floats + (row - unit.row_begin) * row_floats;
          table_.attend(q.data + row * q.cols + unit.kv_head * group * dim, group,
                        narrow(loaded, loaded_begin, here, dim), dim, scratch(thread) + panel, part,
                        part + group, part + 2 * group);
        }
      }
    });
    for (int64_t i = 0; i < n; ++i) {
      const Task& task = tasks[static_cast<size_t>(done + i)];
      const AttentionUnit& unit = units_[static_cast<size_t>(task.unit)];
      for (int64_t row = unit.row_begin; row < unit.row_end; ++row) {
        bool first;
        const KeyRange here = seen_in(row, task.segment, &first);
        if (here.begin >= here.end) continue;
        const float* part =
            cpu(partials).data + i * task_floats + (row - unit.row_begin) * row_floats;
        float* total = cpu(totals).data + (unit.kv_head * q.rows + row) * 2 * group;
        float* vectors = out.data + row * q.cols + unit.kv_head * group * dim;
        if (first) {
          std::copy_n(part, 2 * group, total);
          std::copy_n(part + 2 * group, group * dim, vectors);
        } else {
          table_.join(total, total + group, vectors, part, part + group, part + 2 * group, group,
                      dim);
        }
      }
    }
  }
  for (int64_t h = 0; h < call.n_kv_heads; ++h) {
    for (int64_t row = 0; row < q.rows; ++row) {
      table_.finish(out.data + row * q.cols + h * group * dim,
                    cpu(totals).data + (h * q.rows + row) * 2 * group + group, group, dim);
    }
  }
}

Value CpuOps::attention(const Value& q, const Value& k, const Value& v, const AttentionCall& call) {
  CHECK(call.n_kv_heads > 0 && call.n_heads % call.n_kv_heads == 0);
  CHECK(call.head_dim > 0 && call.head_dim <= kMaxHeadDim);
  CHECK(q->cols == call.n_heads * call.head_dim);
  CHECK(q->rows == static_cast<int64_t>(call.q_rows.size()));
  CHECK((k == nullptr) == (v == nullptr));
  if (k) store_kv(cpu(k), cpu(v), call);
  Value out = make(q->rows, q->cols);
  if (q->rows == 0) return out;
  const KvType type = call.sequences[static_cast<size_t>(call.q_rows.front().sequence)].type;
  const int64_t group = call.n_heads / call.n_kv_heads;
  const bool codes = is_kv_codes(type);
  plan_attention(call, codes ? std::clamp<int64_t>(kUnitQueries / group, 1, 64) : kUnitRows);
  if (codes) {
    attend_codes(cpu(q), cpu(out), call);
  } else if (split_segments()) {
    attend_split(cpu(q), cpu(out), call);
  } else {
    attend_units(cpu(q), cpu(out), call);
  }
  return out;
}

}  // namespace carat::kernels
