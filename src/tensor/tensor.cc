#include "tensor/tensor.h"

namespace carat {

std::string to_string(const Shape& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i) s += ", ";
    s += std::to_string(shape[i]);
  }
  return s + "]";
}

std::optional<int64_t> element_count(const Shape& shape) {
  int64_t n = 1;
  for (int64_t d : shape) {
    if (d <= 0) return std::nullopt;
    const auto p = checked_mul(n, d);
    if (!p) return std::nullopt;
    n = *p;
  }
  return n;
}

std::optional<int64_t> byte_count(DType dtype, const Shape& shape) {
  const auto n = element_count(shape);
  if (!n) return std::nullopt;
  const DTypeInfo& i = info(dtype);
  const int64_t columns = shape.empty() ? 1 : shape.back();
  if (columns % i.block_elements != 0) return std::nullopt;
  return checked_mul(*n / i.block_elements, i.block_bytes);
}

int64_t TensorView::rows() const {
  int64_t n = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) n *= shape[i];
  return n;
}

}  // namespace carat
