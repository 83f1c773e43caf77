#include "base/large_memory.h"

#include <sys/mman.h>

#include "base/checked.h"

namespace carat {

std::optional<LargeMemory> LargeMemory::try_allocate(int64_t bytes) {
  CHECK(bytes >= 0);
  LargeMemory memory;
  if (bytes == 0) return memory;
  const auto padded = checked_add(bytes, 2 * kPage);
  if (!padded) return std::nullopt;
  const auto size = static_cast<size_t>(round_up(bytes, kPage) + kPage);
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return std::nullopt;
  memory.mapping_ = {static_cast<std::byte*>(at), size};
  const auto address = reinterpret_cast<uintptr_t>(at);
  const size_t skip = static_cast<size_t>(-address) % static_cast<size_t>(kPage);
  memory.bytes_ = memory.mapping_.subspan(skip, static_cast<size_t>(bytes));
#ifdef MADV_HUGEPAGE
  (void)madvise(memory.bytes_.data(), size - static_cast<size_t>(kPage), MADV_HUGEPAGE);
#endif
  return memory;
}

LargeMemory::~LargeMemory() {
  if (!mapping_.empty()) munmap(mapping_.data(), mapping_.size());
}

}  // namespace carat
