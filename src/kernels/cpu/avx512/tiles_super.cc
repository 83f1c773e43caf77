// Products with tiles of the formats with blocks of 256 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avx512/isa.h"
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avx512 {

CARAT_TILE_LINEAR(Avx512, kQ4_K)
CARAT_TILE_LINEAR(Avx512, kQ5_K)
CARAT_TILE_LINEAR(Avx512, kIQ4_XS)
CARAT_TILE_LINEAR(Avx512, kQ6_K)
CARAT_TILE_LINEAR(Avx512, kQ3_K)
CARAT_TILE_LINEAR(Avx512, kQ2_K)

}  // namespace carat::kernels::avx512

#endif
