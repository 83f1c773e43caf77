// THE table of element and block types: names, ids, sizes. Nothing else knows them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace carat {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ8_0,
  kQ6_K,
  kI8,
  kI16,
  kI32,
  kI64,
  kF64,
  kU8,
  kBool,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kIQ4_NL,
  kIQ4_XS,
  // Codes of 2, 4 or 8 bits whose scales lie in another tensor (quant/coded_rows.h). No file names
  // these types: they are what codes in U8, I32 or I8 tensors are.
  kC2,
  kC4,
  kC8,
  kMXFP4
};

struct DTypeInfo {
  DType dtype;
  const char* name;         // "Q4_0"
  const char* safetensors;  // "BF16", or nullptr if safetensors has no such type
  int gguf_id;              // ggml type id, or -1 if GGUF has no such type
  int block_elements;       // elements along a row that share one block (1: no blocks)
  int block_bytes;          // bytes of one block
  bool computable;          // the kernels can multiply by a file's matrix of this type
};

const DTypeInfo& info(DType dtype);
std::span<const DTypeInfo> all_dtypes();
std::optional<DType> dtype_from_gguf(int64_t id);
std::optional<DType> dtype_from_safetensors(std::string_view name);
std::optional<DType> dtype_from_name(std::string_view name);  // case-insensitive

// The types that `computable` says, as a message lists them: "F32, F16, ... or IQ4_XS".
std::string computable_names();

inline const char* name_of(DType dtype) { return info(dtype).name; }

// Bytes of one row of `columns` elements. REQUIRES: columns is a multiple of block_elements.
inline int64_t row_bytes(DType dtype, int64_t columns) {
  const DTypeInfo& i = info(dtype);
  return columns / i.block_elements * i.block_bytes;
}

}  // namespace carat
