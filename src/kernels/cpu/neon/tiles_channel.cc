// Products with tiles of the formats with one scale per row.
#if defined(__aarch64__)

#include "kernels/cpu/neon/isa.h"
#include "kernels/cpu/neon/table.h"
#include "kernels/cpu/tile/channel.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::neon {

CARAT_TILE_LINEAR(Neon, kC2)
CARAT_TILE_LINEAR(Neon, kC4)
CARAT_TILE_LINEAR(Neon, kC8)
CARAT_TILE_STATIC(Neon, kC2)
CARAT_TILE_STATIC(Neon, kC4)
CARAT_TILE_STATIC(Neon, kC8)

}  // namespace carat::kernels::neon

#endif
