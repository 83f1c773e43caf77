// Products with tiles of the formats with blocks of 32 columns.
#if defined(__aarch64__)

#include "kernels/cpu/neon/isa.h"
#include "kernels/cpu/neon/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::neon {

CARAT_TILE_LINEAR(Neon, kQ4_0)
CARAT_TILE_LINEAR(Neon, kIQ4_NL)
CARAT_TILE_LINEAR(Neon, kQ5_0)
CARAT_TILE_LINEAR(Neon, kQ8_0)
CARAT_TILE_LINEAR(Neon, kQ4_1)
CARAT_TILE_LINEAR(Neon, kQ5_1)

}  // namespace carat::kernels::neon

#endif
