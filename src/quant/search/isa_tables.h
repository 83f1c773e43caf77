// The tables of the files that are compiled for one instruction set each. Leaf files: they call no
// inline function that portable code calls too.
#pragma once

#include "quant/search/table.h"

namespace carat::quant::search {

extern const Searches kGenericSearches;
#if defined(__x86_64__)
extern const Searches kAvx2Searches, kAvx512Searches;
#endif

}  // namespace carat::quant::search
