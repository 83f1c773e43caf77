// Attention on the tape. Queries are taken in blocks of rows of one sequence; for each block and
// head the probabilities over the block's span of keys are kept for the way back.
//
//   forward   P = softmax(Q K^T) on the visible keys, O = P V
//   backward  dV += P^T dO,  dP = dO V^T,  dS = P (dP - rowsum(P dP)),  dQ += dS K,  dK += dS^T Q
#include <cstring>

#include "train/tape_impl.h"

namespace carat::train {
namespace {

constexpr int64_t kBlockRows = 64;

// Scratch of one thread.
template <class T>
T* scratch(int64_t n) {
  thread_local std::vector<T> buffer;
  if (static_cast<int64_t>(buffer.size()) < n) buffer.resize(static_cast<size_t>(n));
  return buffer.data();
}

}  // namespace

template <class T>
struct Tape<T>::Attention {
  // Consecutive rows of q of one sequence, and the span of keys that any of them sees.
  struct Block {
    int64_t row, n;        // of q
    int32_t position;      // of its first row
    int64_t key, n_keys;   // rows of k
    int32_t key_position;  // of the first key
    T* probabilities;      // [n_heads][n][n_keys]
  };
  // Blocks of one sequence: [first, last).
  struct Range {
    size_t first, last;
  };

  int64_t n_heads, n_kv_heads, head_dim, window;
  kernels::Value q, y;
  std::shared_ptr<Keys> keys;
  std::vector<Block> blocks;
  std::vector<Range> sequences;

  int64_t q_stride() const { return n_heads * head_dim; }
  int64_t kv_stride() const { return n_kv_heads * head_dim; }
  // Keys that row i of the block sees, counted from the block's first key: [begin, end).
  int64_t begin(const Block& b, int64_t i) const {
    const int64_t first = window > 0 ? b.position + i - window + 1 : 0;
    return std::max<int64_t>(0, first - b.key_position);
  }
  int64_t end(const Block& b, int64_t i) const { return b.position + i + 1 - b.key_position; }
};

namespace {

template <class Map>
void list_sequences(std::span<const kernels::RowRef> rows, Map& sequences) {
  for (size_t i = 0; i < rows.size(); ++i) {
    auto [at, is_new] = sequences.try_emplace(rows[i].sequence);
    auto& s = at->second;
    if (is_new) {
      s.row = static_cast<int64_t>(i);
      s.position = rows[i].position;
    }
    CHECK(s.row + s.n == static_cast<int64_t>(i) && s.position + s.n == rows[i].position);
    ++s.n;
  }
}

}  // namespace

template <class T>
kernels::Value Tape<T>::attention(const Value& q, const Value& k, const Value& v,
                                  const kernels::AttentionCall& call) {
  CHECK(call.n_kv_heads > 0 && call.n_heads % call.n_kv_heads == 0);
  CHECK(q->cols == call.n_heads * call.head_dim);
  CHECK(static_cast<int64_t>(call.q_rows.size()) == q->rows);
  if (k) {
    CHECK(v && k->cols == call.n_kv_heads * call.head_dim && v->cols == k->cols);
    CHECK(static_cast<int64_t>(call.kv_rows.size()) == k->rows && v->rows == k->rows);
    auto keys = std::make_shared<Keys>();
    keys->k = node(rounded(k, call.k_scale));
    keys->v = node(rounded(v, call.v_scale));
    list_sequences(call.kv_rows, keys->sequences);
    keys_[call.kv_layer] = std::move(keys);
  }
  const auto owner = keys_.find(call.kv_layer);
  CHECK(owner != keys_.end());

  auto a = std::make_shared<Attention>();
  a->n_heads = call.n_heads;
  a->n_kv_heads = call.n_kv_heads;
  a->head_dim = call.head_dim;
  a->window = call.window;
  a->q = q;
  a->keys = owner->second;
  CHECK(a->keys->k->cols == a->kv_stride());
  // Query rows may be fewer than the keys: runs of consecutive positions become blocks.
  for (int64_t t = 0; t < q->rows;) {
    const kernels::RowRef first = call.q_rows[static_cast<size_t>(t)];
    const auto found = a->keys->sequences.find(first.sequence);
    CHECK(found != a->keys->sequences.end());
    const auto& s = found->second;
    int64_t n = 1;
    while (n < kBlockRows && t + n < q->rows) {
      const kernels::RowRef next = call.q_rows[static_cast<size_t>(t + n)];
      if (next.sequence != first.sequence || next.position != first.position + n) break;
      ++n;
    }
    CHECK(first.position >= s.position && first.position + n <= s.position + s.n);
    const int64_t skipped =
        call.window > 0 ? std::max<int64_t>(0, first.position - call.window + 1 - s.position) : 0;
    const int64_t n_keys = first.position + n - s.position - skipped;
    const bool same = !a->sequences.empty() && t > 0 &&
                      call.q_rows[static_cast<size_t>(t - 1)].sequence == first.sequence;
    if (!same) a->sequences.push_back({a->blocks.size(), a->blocks.size()});
    a->blocks.push_back({t, n, first.position, s.row + skipped, n_keys,
                         static_cast<int32_t>(s.position + skipped),
                         arena_.template get<T>(call.n_heads * n * n_keys)});
    a->sequences.back().last = a->blocks.size();
    t += n;
  }
  a->y = make(q->rows, q->cols);
  attend(*a);
  record([this, a] { attend_backward(*a); });
  return a->y;
}

template <class T>
void Tape<T>::attend(const Attention& a) {
  const int64_t hd = a.head_dim, group = a.n_heads / a.n_kv_heads;
  const int64_t n_blocks = static_cast<int64_t>(a.blocks.size());
  each(n_blocks * a.n_heads, 1, [&](int64_t task) {
    const auto& b = a.blocks[static_cast<size_t>(task / a.n_heads)];
    const int64_t h = task % a.n_heads, kv = h / group * hd;
    T* p = b.probabilities + h * b.n * b.n_keys;
    const T* q = node(a.q)->value + b.row * a.q_stride() + h * hd;
    const T* k = a.keys->k->value + b.key * a.kv_stride() + kv;
    const T* v = a.keys->v->value + b.key * a.kv_stride() + kv;
    multiply(Gemm<T>{false, true, b.n, b.n_keys, hd, T(1), q, a.q_stride(), k, a.kv_stride(), T(0),
                     p, b.n_keys},
             nullptr);
    for (int64_t i = 0; i < b.n; ++i) {
      T* row = p + i * b.n_keys;
      const int64_t begin = a.begin(b, i), end = a.end(b, i);
      std::fill(row, row + begin, T(0));
      loops_.softmax(end - begin, row + begin);
      std::fill(row + end, row + b.n_keys, T(0));
    }
    multiply(Gemm<T>{false, false, b.n, hd, b.n_keys, T(1), p, b.n_keys, v, a.kv_stride(), T(0),
                     node(a.y)->value + b.row * a.q_stride() + h * hd, a.q_stride()},
             nullptr);
  });
  for (const auto& b : a.blocks) flops_ += 4.0 * static_cast<double>(b.n * b.n_keys * a.q_stride());
}

template <class T>
void Tape<T>::attend_backward(const Attention& a) {
  const T* dy = node(a.y)->gradient;
  if (!dy) return;
  T* dq = gradient_of(node(a.q));
  T* dk = gradient_of(a.keys->k);
  T* dv = gradient_of(a.keys->v);
  const int64_t hd = a.head_dim, group = a.n_heads / a.n_kv_heads;
  const int64_t qs = a.q_stride(), ks = a.kv_stride();
  // All blocks that touch the same rows and columns of dk and dv are one task, in order.
  std::map<int64_t, std::vector<typename Attention::Range>> by_sequence;
  for (const auto& r : a.sequences) {
    for (const auto& [id, s] : a.keys->sequences) {
      const int64_t key = a.blocks[r.first].key;
      if (key >= s.row && key < s.row + s.n) by_sequence[s.row].push_back(r);
    }
  }
  std::vector<std::vector<typename Attention::Range>> tasks;
  for (auto& [row, ranges] : by_sequence) tasks.push_back(std::move(ranges));

  each(static_cast<int64_t>(tasks.size()) * a.n_kv_heads, 1, [&](int64_t task) {
    const int64_t kv_head = task % a.n_kv_heads, kv = kv_head * hd;
    for (const auto& range : tasks[static_cast<size_t>(task / a.n_kv_heads)]) {
      for (size_t i = range.first; i < range.last; ++i) {
        const auto& b = a.blocks[i];
        const T* k = a.keys->k->value + b.key * ks + kv;
        const T* v = a.keys->v->value + b.key * ks + kv;
        T* ds = scratch<T>(b.n * b.n_keys);
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const T* p = b.probabilities + h * b.n * b.n_keys;
          const int64_t at = b.row * qs + h * hd;
          multiply(Gemm<T>{true, false, b.n_keys, hd, b.n, T(1), p, b.n_keys, dy + at, qs, T(1),
                           dv + b.key * ks + kv, ks},
                   nullptr);
          multiply(
              Gemm<T>{false, true, b.n, b.n_keys, hd, T(1), dy + at, qs, v, ks, T(0), ds, b.n_keys},
              nullptr);
          for (int64_t r = 0; r < b.n; ++r) {
            T* row = ds + r * b.n_keys;
            const int64_t begin = a.begin(b, r), end = a.end(b, r);
            std::fill(row, row + begin, T(0));
            loops_.softmax_backward(end - begin, p + r * b.n_keys + begin, row + begin);
            std::fill(row + end, row + b.n_keys, T(0));
          }
          multiply(Gemm<T>{false, false, b.n, hd, b.n_keys, T(1), ds, b.n_keys, k, ks, T(1),
                           dq + at, qs},
                   nullptr);
          multiply(Gemm<T>{true, false, b.n_keys, hd, b.n, T(1), ds, b.n_keys,
                           node(a.q)->value + at, qs, T(1), dk + b.key * ks + kv, ks},
                   nullptr);
        }
      }
    }
  });
  for (const auto& b : a.blocks) flops_ += 8.0 * static_cast<double>(b.n * b.n_keys * qs);
}

template kernels::Value Tape<float>::attention(const Value&, const Value&, const Value&,
                                               const kernels::AttentionCall&);
template kernels::Value Tape<double>::attention(const Value&, const Value&, const Value&,
                                                const kernels::AttentionCall&);

}  // namespace carat::train
