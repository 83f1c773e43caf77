// The tape's loops over one row, forward and backward, other than matrix products.
//
// One source (loops.inl) compiled for several ISAs. Functions named *_backward add to the gradients
// they are given. Sums within a row run in lanes of the ISA's width: results differ between ISAs in
// the last bits and depend on nothing else.
#pragma once

#include <cstdint>

namespace carat::train {

template <class T>
struct Loops {
  void (*add)(int64_t n, const T* a, const T* b, T* y) noexcept;
  void (*scale)(int64_t n, T a, const T* x, T* y) noexcept;
  void (*axpy)(int64_t n, T a, const T* x, T* y) noexcept;  // y += a x
  T (*dot)(int64_t n, const T* a, const T* b) noexcept;
  // y = gelu(gate) up, gelu as in kernels/ops.h
  void (*geglu)(int64_t n, const T* gate, const T* up, T* y) noexcept;
  void (*geglu_backward)(int64_t n, const T* gate, const T* up, const T* dy, T* dgate,
                         T* dup) noexcept;
  // y = cap tanh(x / cap); dy/dx = 1 - (y / cap)^2
  void (*softcap)(int64_t n, T cap, const T* x, T* y) noexcept;
  void (*softcap_backward)(int64_t n, T cap, const T* y, const T* dy, T* dx) noexcept;
  // y = x r w, returns r = (mean(x^2) + eps)^(-1/2); w may be null (ones)
  T (*rms_norm)(int64_t n, T eps, const T* x, const T* w, T* y) noexcept;
  // dx += r (w dy - x r^2 mean(w dy x)), dw += dy x r; w and dw may be null together
  void (*rms_norm_backward)(int64_t n, T r, const T* x, const T* w, const T* dy, T* dx,
                            T* dw) noexcept;
  // Turns pairs (i, i + half) by the angles.
  void (*rope)(int64_t half, const T* cos, const T* sin, const T* x, T* y) noexcept;
  void (*rope_backward)(int64_t half, const T* cos, const T* sin, const T* dy, T* dx) noexcept;
  void (*softmax)(int64_t n, T* x) noexcept;                        // in place
  void (*softmax_backward)(int64_t n, const T* p, T* dp) noexcept;  // dp becomes the score's
  // -log softmax(x)[target]; dx += weight (softmax(x) - onehot), if dx is given
  T (*cross_entropy)(int64_t n, const T* x, int64_t target, T weight, T* dx) noexcept;
  // KL(softmax(teacher) || softmax(x)); dx += weight (softmax(x) - softmax(teacher)). scratch: n
  T (*distillation)(int64_t n, const T* teacher, const T* x, T weight, T* dx, T* scratch) noexcept;
};

// The best table for this processor.
template <class T>
const Loops<T>& loops();

extern const Loops<float> kLoopsGeneric;
extern const Loops<double> kLoopsDouble;
#if defined(__x86_64__)
extern const Loops<float> kLoopsAvx2;
extern const Loops<float> kLoopsAvx512;
#endif

}  // namespace carat::train
