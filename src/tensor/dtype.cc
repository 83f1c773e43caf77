#include "tensor/dtype.h"

#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace carat {
namespace {

// In the order of the enumeration.
constexpr DTypeInfo kTable[] = {
    {DType::kF32, "F32", "F32", 0, 1, 4, true},
    {DType::kF16, "F16", "F16", 1, 1, 2, true},
    {DType::kBF16, "BF16", "BF16", 30, 1, 2, true},
    {DType::kQ4_0, "Q4_0", nullptr, 2, 32, 18, true},
    {DType::kQ8_0, "Q8_0", nullptr, 8, 32, 34, true},
    {DType::kQ6_K, "Q6_K", nullptr, 14, 256, 210, true},
    {DType::kI8, "I8", "I8", 24, 1, 1, false},
    {DType::kI16, "I16", "I16", 25, 1, 2, false},
    {DType::kI32, "I32", "I32", 26, 1, 4, false},
    {DType::kI64, "I64", "I64", 27, 1, 8, false},
    {DType::kF64, "F64", "F64", 28, 1, 8, false},
    {DType::kU8, "U8", "U8", -1, 1, 1, false},
    {DType::kBool, "BOOL", "BOOL", -1, 1, 1, false},
    {DType::kQ4_1, "Q4_1", nullptr, 3, 32, 20, true},
    {DType::kQ5_0, "Q5_0", nullptr, 6, 32, 22, true},
    {DType::kQ5_1, "Q5_1", nullptr, 7, 32, 24, true},
    {DType::kQ2_K, "Q2_K", nullptr, 10, 256, 84, true},
    {DType::kQ3_K, "Q3_K", nullptr, 11, 256, 110, true},
    {DType::kQ4_K, "Q4_K", nullptr, 12, 256, 144, true},
    {DType::kQ5_K, "Q5_K", nullptr, 13, 256, 176, true},
    {DType::kIQ4_NL, "IQ4_NL", nullptr, 20, 32, 18, true},
    {DType::kIQ4_XS, "IQ4_XS", nullptr, 23, 256, 136, true},
    {DType::kC2, "C2", nullptr, -1, 4, 1, false},
    {DType::kC4, "C4", nullptr, -1, 2, 1, false},
    {DType::kC8, "C8", nullptr, -1, 1, 1, false},
    {DType::kMXFP4, "MXFP4", nullptr, 39, 32, 17, false},
};

constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kTable); ++i) {
    if (static_cast<size_t>(kTable[i].dtype) != i) return false;
  }
  return true;
}
static_assert(in_order());

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::toupper(static_cast<unsigned char>(a[i])) !=
        std::toupper(static_cast<unsigned char>(b[i]))) {
      return false;
    }
  }
  return true;
}

}  // namespace

const DTypeInfo& info(DType dtype) { return kTable[static_cast<size_t>(dtype)]; }
std::span<const DTypeInfo> all_dtypes() { return kTable; }

std::optional<DType> dtype_from_gguf(int64_t id) {
  for (const DTypeInfo& i : kTable) {
    if (i.gguf_id >= 0 && i.gguf_id == id) return i.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeInfo& i : kTable) {
    if (i.safetensors && name == i.safetensors) return i.dtype;
  }
  return std::nullopt;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& i : kTable) {
    if (equal_ignoring_case(name, i.name)) return i.dtype;
  }
  return std::nullopt;
}

std::string computable_names() {
  std::string names;
  const DTypeInfo* last = nullptr;
  for (const DTypeInfo& i : kTable) {
    if (!i.computable) continue;
    if (last) names.append(names.empty() ? "" : ", ").append(last->name);
    last = &i;
  }
  return names + " or " + last->name;
}

}  // namespace carat
