// What the tape's source files share.
#pragma once

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "train/gemm.h"
#include "train/tape.h"

namespace carat::train {

template <class T>
struct Tape<T>::Node : kernels::ValueBase {
  T* value = nullptr;
  T* gradient = nullptr;
  int64_t size() const { return rows * cols; }
};

// K and V of an owning layer, and where each sequence's rows are.
template <class T>
struct Tape<T>::Keys {
  Node* k = nullptr;
  Node* v = nullptr;
  struct Sequence {
    int64_t row = 0;       // of its first key
    int64_t n = 0;         // keys
    int32_t position = 0;  // of the first key
  };
  std::map<int32_t, Sequence> sequences;
};

// cos and sin for positions 0.., [positions][half].
template <class T>
struct Tape<T>::RopeTable {
  kernels::Rope rope;
  int64_t positions = 0;
  std::vector<T> cos, sin;
};

// Rows in a piece of a parallel loop over rows of `cols` elements.
inline int64_t row_grain(int64_t cols) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(cols, 1));
}

template <class T>
typename Tape<T>::Node* Tape<T>::node(const Value& x) {
  return static_cast<Node*>(x.get());
}

template <class T>
T* Tape<T>::gradient_of(Node* n, bool* fresh) {
  *fresh = n->gradient == nullptr;
  if (*fresh) n->gradient = arena_.get<T>(n->size());
  return n->gradient;
}

template <class T>
T* Tape<T>::gradient_of(Node* n) {
  bool fresh;
  T* g = gradient_of(n, &fresh);
  if (fresh) {
    each(ceil_div(n->size(), 65536), 1, [&](int64_t i) {
      std::fill(g + i * 65536, g + std::min(n->size(), (i + 1) * 65536), T(0));
    });
  }
  return g;
}

template <class T>
void Tape<T>::gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const T* a, const T* b,
                   T beta, T* c, ThreadPool* pool) {
  flops_ += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  multiply(Gemm<T>{ta, tb, m, n, k, T(1), a, ta ? m : k, b, tb ? k : n, beta, c, n}, pool);
}

template <class T>
template <class F>
void Tape<T>::reduce(int64_t n, int64_t chunk, int64_t width, T* out, F&& f) {
  const int64_t chunks = ceil_div(n, chunk);
  T* partial = arena_.get<T>(chunks * width);
  each(chunks, 1, [&](int64_t c) {
    std::fill(partial + c * width, partial + (c + 1) * width, T(0));
    f(c * chunk, std::min(n, (c + 1) * chunk), partial + c * width);
  });
  for (int64_t c = 0; c < chunks; ++c) loops_.axpy(width, T(1), partial + c * width, out);
}

}  // namespace carat::train
