// Products with tiles of the formats with blocks of 256 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/isa.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avx2 {

CARAT_TILE_LINEAR(Avx2, kQ4_K)
CARAT_TILE_LINEAR(Avx2, kQ5_K)
CARAT_TILE_LINEAR(Avx2, kIQ4_XS)
CARAT_TILE_LINEAR(Avx2, kQ6_K)
CARAT_TILE_LINEAR(Avx2, kQ3_K)
CARAT_TILE_LINEAR(Avx2, kQ2_K)

}  // namespace carat::kernels::avx2

#endif
