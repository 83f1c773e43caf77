// What this machine has to spare, and what this process took.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace carat::app {

// Bytes that can be allocated without pushing others out, and within the limits of this process's
// control groups and of all above them; pages of files that the system keeps as a cache count as
// available. A very large number where the system does not say.
// root: where /proc and /sys lie, for tests.
[[nodiscard]] int64_t available_memory(const std::string& root = "");

// Of `free` bytes, what a model may take: a tenth stays for everything else.
[[nodiscard]] constexpr int64_t share_for_model(int64_t free) { return free / 10 * 9; }

// What a control group still allows: its limit less what is used, where pages of files do not count
// as used. `current` and `stat` as the group's files have them; nothing without a limit.
[[nodiscard]] std::optional<int64_t> group_memory(const std::string& limit,
                                                  const std::string& current,
                                                  const std::string& stat);

// This process's maximum resident set in bytes, mapped pages included. Nothing where the system
// does not say. root: as above.
[[nodiscard]] std::optional<int64_t> peak_resident_bytes(const std::string& root = "");

// "512MB", "2.5GB", "1048576": bytes, with kB, MB, GB = 1e3, 1e6, 1e9 and KiB, MiB, GiB = 2^10,
// 2^20, 2^30. Throws UsageError naming `option`.
[[nodiscard]] int64_t parse_bytes(const std::string& text, const std::string& option);

}  // namespace carat::app
