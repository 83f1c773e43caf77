#include <atomic>
#include <vector>

#include "base/instruction_sets.h"
#include "quant/search/isa_tables.h"

namespace carat::quant::search {
namespace {

std::atomic<const Searches*> chosen_for_tests = nullptr;

std::vector<const Searches*> find_supported() {
  std::vector<const Searches*> found;
#if defined(__x86_64__)
  if (has_avx512()) found.push_back(&kAvx512Searches);
  if (has_avx2()) found.push_back(&kAvx2Searches);
#endif
  found.push_back(&kGenericSearches);
  return found;
}

}  // namespace

std::span<const Searches* const> supported_searches() noexcept {
  static const std::vector<const Searches*> found = find_supported();
  return found;
}

const Searches& searches() noexcept {
  const Searches* chosen = chosen_for_tests.load(std::memory_order_relaxed);
  return chosen != nullptr ? *chosen : *supported_searches().front();
}

void use_searches(const Searches* chosen) noexcept { chosen_for_tests = chosen; }

}  // namespace carat::quant::search
