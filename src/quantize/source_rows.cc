#include "quantize/source_rows.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "convert/transcode.h"

namespace carat::quantize {

namespace {
constexpr int64_t kUnit = 256;  // elements that Transcoder::decode takes at a time
}

SourceRows::SourceRows(const io::Checkpoint& checkpoint, const model::Config& config)
    : source_(*checkpoint.tensors), config_(config), stored_(checkpoint, config) {}

void SourceRows::read(model::TensorRef ref, int64_t begin, int64_t n, float* out) const {
  const auto stored = stored_.find(ref);
  CHECK(stored.has_value());  // load_model bound it
  const convert::SourceTensor tensor = convert::source_tensor(source_, *stored);
  const int64_t columns = model::shape_of(config_, ref).back();
  CHECK(begin >= 0 && n >= 0 && (begin + n) * columns <= tensor.elements);
  // A row may begin inside a block of 256 codes, so whole ones are read.
  const int64_t first = begin * columns / kUnit * kUnit;
  const int64_t last =
      std::min(tensor.elements, ((begin + n) * columns + kUnit - 1) / kUnit * kUnit);
  std::vector<std::byte> raw;
  if (first == begin * columns && last == (begin + n) * columns) {
    convert::Transcoder::decode(tensor, first, last - first, raw, out);
    return;
  }
  std::vector<float> values(static_cast<size_t>(last - first));
  convert::Transcoder::decode(tensor, first, last - first, raw, values.data());
  std::copy_n(values.data() + (begin * columns - first), n * columns, out);
}

DType SourceRows::dtype(model::TensorRef ref) const {
  const auto stored = stored_.find(ref);
  CHECK(stored.has_value());
  return stored->dtype;
}

}  // namespace carat::quantize
