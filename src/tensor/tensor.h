// Shapes and views. Row-major, slowest dimension first (as Hugging Face writes them: a linear
// layer's weight is [out, in]); GGUF's fastest-first order exists only inside io/gguf_*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/checked.h"
#include "tensor/dtype.h"

namespace carat {

// Up to four dimensions, slowest first.
using Shape = std::vector<int64_t>;

// "[262144, 1536]".
std::string to_string(const Shape& shape);

// Number of elements, or nothing if a dimension is not positive or the product overflows.
std::optional<int64_t> element_count(const Shape& shape);

// Bytes of a tensor, or nothing if that overflows or the last dimension is not a whole number of
// blocks of `dtype`.
std::optional<int64_t> byte_count(DType dtype, const Shape& shape);

// Bytes with a type and a shape. Does not own them.
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const std::byte* data = nullptr;

  int64_t columns() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const;  // product of all dimensions but the last
  int64_t row_size() const { return row_bytes(dtype, columns()); }
  std::span<const std::byte> bytes() const {
    return {data, static_cast<size_t>(rows() * row_size())};
  }
};

}  // namespace carat
