#include "kernels/cpu/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <new>

#include "base/error.h"

namespace carat::kernels {
namespace {

constexpr std::align_val_t kAlignment{64};
constexpr int64_t kSmallest = 64;
constexpr int64_t kLarge = int64_t{1} << 20;

}  // namespace

// Four sizes to an octave: 5/8, 6/8, 7/8 and 8/8 of a power of two, so that at most a quarter is
// wasted and batches of nearly the same length share blocks.
BufferPool::SizeClass BufferPool::class_of(int64_t bytes) {
  const uint64_t last = static_cast<uint64_t>(std::max(bytes, kSmallest)) - 1;
  const int shift = std::bit_width(last) - 3;
  const uint64_t eighths = (last >> shift) + 1;  // 5..8
  return {shift * 4 + static_cast<int>(eighths) - 5, static_cast<int64_t>(eighths << shift)};
}

BufferPool::~BufferPool() {
  for (std::vector<void*>& list : free_) {
    for (void* block : list) ::operator delete(block, kAlignment);
  }
}

void* BufferPool::take(int64_t bytes) {
  if (bytes == 0) return nullptr;
  CHECK(bytes > 0 && bytes < int64_t{1} << 60);
  const SizeClass c = class_of(bytes);
  std::vector<void*>& list = free_[static_cast<size_t>(c.index)];
  in_use_ += c.bytes;
  if (list.empty()) return ::operator new(static_cast<size_t>(c.bytes), kAlignment);
  void* block = list.back();
  list.pop_back();
  at_rest_ -= c.bytes;
  return block;
}

void BufferPool::give(void* block, int64_t bytes) noexcept {
  if (!block) return;
  const SizeClass c = class_of(bytes);
  in_use_ -= c.bytes;
  if (c.bytes >= kLarge && at_rest_ + c.bytes > kKeepBytes) {
    ::operator delete(block, kAlignment);
    return;
  }
  at_rest_ += c.bytes;
  free_[static_cast<size_t>(c.index)].push_back(block);
}

}  // namespace carat::kernels
