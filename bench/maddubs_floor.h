// The arithmetic floor of int8 products on AVX2: maddubs and add on registers.
#pragma once

#include <cstdint>

// Runs `steps` rounds of 12 independent maddubs + add; returns the multiply-adds done. `sink` keeps
// the result alive. REQUIRES: AVX2.
int64_t run_maddubs_floor(int64_t steps, int16_t* sink) noexcept;
