// LatticeStats as JSON that gives every bit back, for the journal of a conversion.
#pragma once

#include "base/json.h"
#include "convert/lattice_stats.h"

namespace carat::convert {

Json full_json(const LatticeStats& stats);
// Throws Error if the text is not one of full_json's.
LatticeStats lattice_from_full_json(const Json& json);

}  // namespace carat::convert
