// Products with tiles of the formats with one scale per row.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/isa.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/tile/channel.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avx2 {

CARAT_TILE_LINEAR(Avx2, kC2)
CARAT_TILE_LINEAR(Avx2, kC4)
CARAT_TILE_LINEAR(Avx2, kC8)
CARAT_TILE_STATIC(Avx2, kC2)
CARAT_TILE_STATIC(Avx2, kC4)
CARAT_TILE_STATIC(Avx2, kC8)

}  // namespace carat::kernels::avx2

#endif
