// Which kernels this machine runs: chosen once, above every loop.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "kernels/cpu/table.h"

namespace carat::kernels {

// The scalar table, always there: the oracle of all others.
const KernelTable& generic_kernels();

// Every table that this machine can run, best first; the last one is generic_kernels().
std::span<const KernelTable* const> supported_kernels();

// The best table, or the one named `forced` ("generic", "avx2"). Throws Error for a name that does
// not exist or that this machine cannot run.
const KernelTable& choose_kernels(const std::optional<std::string>& forced = std::nullopt);

}  // namespace carat::kernels
