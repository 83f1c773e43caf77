// Products with tiles of the formats with blocks of 256 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avxvnni/isa.h"
#include "kernels/cpu/avxvnni/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avxvnni {

CARAT_TILE_LINEAR(AvxVnni, kQ4_K)
CARAT_TILE_LINEAR(AvxVnni, kQ5_K)
CARAT_TILE_LINEAR(AvxVnni, kIQ4_XS)
CARAT_TILE_LINEAR(AvxVnni, kQ6_K)
CARAT_TILE_LINEAR(AvxVnni, kQ3_K)
CARAT_TILE_LINEAR(AvxVnni, kQ2_K)

}  // namespace carat::kernels::avxvnni

#endif
