#include "quantize/job.h"

#include <algorithm>

#include "base/error.h"

namespace carat::quantize {

const MatrixPlan* Job::find(model::TensorRef ref) const {
  const auto found = std::find_if(matrices.begin(), matrices.end(), [&](const MatrixPlan& m) {
    return m.ref.kind == ref.kind && m.ref.layer == ref.layer;
  });
  return found == matrices.end() ? nullptr : &*found;
}

void Job::check_stop() const {
  if (stop != nullptr && stop->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace carat::quantize
