// Recycled memory for values: blocks of a few sizes, kept when given back and handed out again
// without touching the system. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carat::kernels {

class BufferPool {
 public:
  // Above this many bytes at rest, large blocks go back to the system.
  static constexpr int64_t kKeepBytes = int64_t{256} << 20;

  BufferPool() = default;
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // At least `bytes` bytes, aligned to 64; contents undefined. Null for 0 bytes.
  [[nodiscard]] void* take(int64_t bytes);
  // Gives back a block that take(bytes) returned.
  void give(void* block, int64_t bytes) noexcept;

  int64_t bytes_in_use() const { return in_use_; }
  int64_t bytes_at_rest() const { return at_rest_; }

 private:
  struct SizeClass {
    int index;
    int64_t bytes;
  };
  static SizeClass class_of(int64_t bytes);

  std::array<std::vector<void*>, 256> free_;
  int64_t in_use_ = 0;
  int64_t at_rest_ = 0;
};

// Lets std::allocate_shared take its blocks from a BufferPool.
template <class T>
struct PoolAllocator {
  using value_type = T;
  BufferPool* pool;

  explicit PoolAllocator(BufferPool* p) : pool(p) {}
  template <class U>
  PoolAllocator(const PoolAllocator<U>& other) : pool(other.pool) {}  // NOLINT: as allocators do

  T* allocate(size_t n) { return static_cast<T*>(pool->take(static_cast<int64_t>(n * sizeof(T)))); }
  void deallocate(T* p, size_t n) noexcept { pool->give(p, static_cast<int64_t>(n * sizeof(T))); }
  template <class U>
  bool operator==(const PoolAllocator<U>& other) const {
    return pool == other.pool;
  }
};

}  // namespace carat::kernels
