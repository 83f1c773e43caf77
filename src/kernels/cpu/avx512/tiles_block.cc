// Products with tiles of the formats with blocks of 32 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avx512/isa.h"
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avx512 {

CARAT_TILE_LINEAR(Avx512, kQ4_0)
CARAT_TILE_LINEAR(Avx512, kIQ4_NL)
CARAT_TILE_LINEAR(Avx512, kQ5_0)
CARAT_TILE_LINEAR(Avx512, kQ8_0)
CARAT_TILE_LINEAR(Avx512, kQ4_1)
CARAT_TILE_LINEAR(Avx512, kQ5_1)

}  // namespace carat::kernels::avx512

#endif
