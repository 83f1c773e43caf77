// A checkpoint in memory, for tests.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/tensor_source.h"

namespace carat::model::testing {

class MemorySource : public io::TensorSource {
 public:
  // Adds a tensor; `bytes` may be empty for tests that never look at them.
  void add(const std::string& name, DType dtype, Shape shape, std::vector<std::byte> bytes = {}) {
    io::TensorEntry e;
    e.name = name;
    e.dtype = dtype;
    e.bytes = byte_count(dtype, shape).value_or(0);
    e.shape = std::move(shape);
    e.offset = static_cast<int64_t>(data_.size());
    bytes.resize(static_cast<size_t>(e.bytes));
    data_.insert(data_.end(), bytes.begin(), bytes.end());
    data_.resize((data_.size() + 63) / 64 * 64);
    entries_.push_back(std::move(e));
  }
  void add_f32(const std::string& name, Shape shape, const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * 4);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    add(name, DType::kF32, std::move(shape), std::move(bytes));
  }
  void remove(const std::string& name) {
    std::erase_if(entries_, [&](const io::TensorEntry& e) { return e.name == name; });
  }
  io::TensorEntry& entry(const std::string& name) {
    return *std::find_if(entries_.begin(), entries_.end(),
                         [&](const io::TensorEntry& e) { return e.name == name; });
  }
  // Call after the last add: the file sees the bytes as they are then.
  void finish() { file_ = memory_file("memory", data_); }

  const std::vector<io::TensorEntry>& entries() const override { return entries_; }
  const io::TensorEntry* find(std::string_view name) const override {
    for (const io::TensorEntry& e : entries_) {
      if (e.name == name) return &e;
    }
    return nullptr;
  }
  const std::string& path_of(const io::TensorEntry&) const override { return path_; }
  std::vector<std::string> paths() const override { return {path_}; }
  TensorView view(const io::TensorEntry& e) const override {
    return {e.dtype, e.shape, data_.data() + e.offset};
  }
  const RandomAccessFile& file_of(const io::TensorEntry&) const override { return *file_; }
  void release(const io::TensorEntry&, int64_t, int64_t) const override {}

 private:
  std::string path_ = "memory";
  std::vector<std::byte> data_;
  std::vector<io::TensorEntry> entries_;
  std::unique_ptr<RandomAccessFile> file_;
};

}  // namespace carat::model::testing
