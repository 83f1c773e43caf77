// Memory for the values of one step: given out in order, taken back all at once, kept for the next.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace carat::train {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `n` elements, aligned to 64 bytes, not initialised, valid until reset().
  template <class T>
  T* get(int64_t n) {
    return reinterpret_cast<T*>(get_bytes(n * static_cast<int64_t>(sizeof(T))));
  }

  void reset() { chunk_ = used_ = 0; }

  // Bytes held from the system.
  int64_t reserved() const {
    int64_t sum = 0;
    for (const Chunk& c : chunks_) sum += c.size;
    return sum;
  }

 private:
  struct Free {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  struct Chunk {
    std::unique_ptr<std::byte[], Free> data;
    int64_t size;
  };

  std::byte* get_bytes(int64_t n) {
    n = (n + 63) / 64 * 64;
    while (chunk_ < static_cast<int64_t>(chunks_.size()) && used_ + n > chunks_[chunk_].size) {
      ++chunk_;
      used_ = 0;
    }
    if (chunk_ == static_cast<int64_t>(chunks_.size())) {
      const int64_t size = n > kChunk ? n : kChunk;
      chunks_.push_back({std::unique_ptr<std::byte[], Free>(
                             new (std::align_val_t{64}) std::byte[static_cast<size_t>(size)]),
                         size});
    }
    std::byte* p = chunks_[chunk_].data.get() + used_;
    used_ += n;
    return p;
  }

  static constexpr int64_t kChunk = int64_t{16} << 20;
  std::vector<Chunk> chunks_;
  int64_t chunk_ = 0, used_ = 0;
};

}  // namespace carat::train
