// Products with tiles of the formats with blocks of 256 columns.
#if defined(__aarch64__)

#include "kernels/cpu/neon/isa.h"
#include "kernels/cpu/neon/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::neon {

CARAT_TILE_LINEAR(Neon, kQ4_K)
CARAT_TILE_LINEAR(Neon, kQ5_K)
CARAT_TILE_LINEAR(Neon, kIQ4_XS)
CARAT_TILE_LINEAR(Neon, kQ6_K)
CARAT_TILE_LINEAR(Neon, kQ3_K)
CARAT_TILE_LINEAR(Neon, kQ2_K)

}  // namespace carat::kernels::neon

#endif
