// How far the search for lattices may go in vector instructions.
#pragma once

#include <string_view>

#include "convert/lattice_run.h"

namespace carat::convert {

// The best of lattice_kernels() that needs nothing beyond the instruction set `isa` (one of
// KernelTable::isa); null if that is none. REQUIRES: this machine can run it.
RecoverRun recover_run_within(std::string_view isa);

// From now on best_recover_run() is that. For the program to call before it works: CARAT_ISA.
// Results do not depend on it.
void use_lattice_isa(std::string_view isa);

}  // namespace carat::convert
