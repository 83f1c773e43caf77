// The typed key-value section of a GGUF file, as views: nothing is copied, whatever its size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace carat::io {

// Value types with their ids in the file.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

[[nodiscard]] const char* name_of(GgufType type);
// Bytes of one value of fixed size, 0 for strings and arrays.
[[nodiscard]] int64_t size_of(GgufType type);

// The strings of an array, in order. Iterates forwards over the file's bytes; indexing would need a
// table as large as the strings are short.
class GgufStrings {
 public:
  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::string_view*;
    using reference = std::string_view;

    Iterator() = default;
    explicit Iterator(const std::byte* at) : at_(at) {}
    std::string_view operator*() const {
      return {reinterpret_cast<const char*>(at_ + 8), static_cast<size_t>(length())};
    }
    Iterator& operator++() {
      at_ += 8 + length();
      return *this;
    }
    Iterator operator++(int) {
      Iterator old = *this;
      ++*this;
      return old;
    }
    bool operator==(const Iterator&) const = default;

   private:
    uint64_t length() const {
      uint64_t n;
      std::memcpy(&n, at_, 8);
      return n;
    }
    const std::byte* at_ = nullptr;
  };

  GgufStrings() = default;
  // `bytes`: `count` strings as in the file, already checked.
  GgufStrings(std::span<const std::byte> bytes, int64_t count) : bytes_(bytes), count_(count) {}
  int64_t size() const { return count_; }
  Iterator begin() const { return Iterator(bytes_.data()); }
  Iterator end() const { return Iterator(bytes_.data() + bytes_.size()); }

 private:
  std::span<const std::byte> bytes_;
  int64_t count_ = 0;
};

// One value, or an array of values of one type.
struct GgufValue {
  GgufType type = GgufType::kU8;  // of the value or of the array's elements; never kArray
  bool is_array = false;
  int64_t count = 1;  // elements of the array
  // As in the file, unaligned. A single string is its text alone; an array of strings has a
  // 64-bit length before each.
  std::span<const std::byte> bytes;
};

// Keys in the order of the file, unique. The views point into the bytes it was parsed from, which
// must outlive it. Const methods may be called from several threads.
//
// The getters check presence, type and range and throw Error naming file and key; the ones with
// `otherwise` return it when the key is absent. Integer getters take any integer type, number
// getters any integer or float type. Bool is neither.
class GgufMetadata {
 public:
  struct Entry {
    std::string_view key;
    GgufValue value;
  };

  GgufMetadata() = default;
  // `file`: the name that errors carry.
  GgufMetadata(std::string file, std::vector<Entry> entries);

  const std::vector<Entry>& entries() const { return entries_; }
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  int64_t get_int(std::string_view key, int64_t lo, int64_t hi) const;
  int64_t get_int(std::string_view key, int64_t lo, int64_t hi, int64_t otherwise) const;
  // Finite and within [lo, hi].
  double get_number(std::string_view key, double lo, double hi) const;
  double get_number(std::string_view key, double lo, double hi, double otherwise) const;
  bool get_bool(std::string_view key) const;
  bool get_bool(std::string_view key, bool otherwise) const;
  std::string_view get_string(std::string_view key) const;
  std::string_view get_string(std::string_view key, std::string_view otherwise) const;

  // Arrays. `count` < 0: any length; otherwise the length that it must have.
  GgufStrings get_strings(std::string_view key, int64_t count = -1) const;
  std::vector<int32_t> get_ints(std::string_view key, int32_t lo, int32_t hi,
                                int64_t count = -1) const;
  std::vector<float> get_floats(std::string_view key, int64_t count = -1) const;  // F32 elements
  std::vector<bool> get_bools(std::string_view key, int64_t count = -1) const;
  // One value per layer, written as an array of `count` or as a single value that holds for all.
  std::vector<int64_t> get_int_per_layer(std::string_view key, int64_t count, int64_t lo,
                                         int64_t hi) const;

 private:
  const GgufValue& need(std::string_view key) const;
  const GgufValue& need_array(std::string_view key, GgufType type, int64_t count) const;
  void check_count(std::string_view key, const GgufValue& value, int64_t count) const;
  int64_t checked_int(std::string_view key, const GgufValue& value, int64_t index, int64_t lo,
                      int64_t hi) const;
  [[noreturn]] void fail(std::string_view key, const char* what, std::string expected,
                         std::string got) const;

  std::string file_;
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, size_t> index_;
};

// "u32 35", "array of 262144 string": a value for people, long texts cut.
std::string describe(const GgufValue& value);

}  // namespace carat::io
