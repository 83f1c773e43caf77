// Products with tiles of the formats with blocks of 32 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avx2/isa.h"
#include "kernels/cpu/avx2/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avx2 {

CARAT_TILE_LINEAR(Avx2, kQ4_0)
CARAT_TILE_LINEAR(Avx2, kIQ4_NL)
CARAT_TILE_LINEAR(Avx2, kQ5_0)
CARAT_TILE_LINEAR(Avx2, kQ8_0)
CARAT_TILE_LINEAR(Avx2, kQ4_1)
CARAT_TILE_LINEAR(Avx2, kQ5_1)

}  // namespace carat::kernels::avx2

#endif
