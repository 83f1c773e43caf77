#include "train/loops.h"

#include "kernels/cpu/sgemm.h"
#include "train/loops.inl"

namespace carat::train {

const Loops<float> kLoopsGeneric = kTable<float>;
const Loops<double> kLoopsDouble = kTable<double>;

template <>
const Loops<float>& loops<float>() {
#if defined(__x86_64__)
  switch (kernels::sgemm_best_isa()) {
    case kernels::SgemmIsa::kAvx512:
      return kLoopsAvx512;
    case kernels::SgemmIsa::kAvx2:
      return kLoopsAvx2;
    default:
      break;
  }
#endif
  return kLoopsGeneric;
}

template <>
const Loops<double>& loops<double>() {
  return kLoopsDouble;
}

}  // namespace carat::train
