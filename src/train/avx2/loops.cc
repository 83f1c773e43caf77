#if defined(__x86_64__)
#include "train/loops.inl"

namespace carat::train {

const Loops<float> kLoopsAvx2 = kTable<float>;

}  // namespace carat::train
#endif
