// What this machine's processor can do, for files compiled for one instruction set. False for those
// of other architectures.
#pragma once

namespace carat {

// AVX2 with FMA, F16C and BMI2.
[[nodiscard]] bool has_avx2() noexcept;
// That, and AVX-512 with its F, DQ, BW, VL and VNNI parts.
[[nodiscard]] bool has_avx512() noexcept;
// AVX2 as above, with VNNI for its vectors.
[[nodiscard]] bool has_avxvnni() noexcept;
// The dot product instructions of 64-bit ARM.
[[nodiscard]] bool has_neon_dot() noexcept;

}  // namespace carat
