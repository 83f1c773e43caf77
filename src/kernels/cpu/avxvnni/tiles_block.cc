// Products with tiles of the formats with blocks of 32 columns.
#if defined(__x86_64__)

#include "kernels/cpu/avxvnni/isa.h"
#include "kernels/cpu/avxvnni/table.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avxvnni {

CARAT_TILE_LINEAR(AvxVnni, kQ4_0)
CARAT_TILE_LINEAR(AvxVnni, kIQ4_NL)
CARAT_TILE_LINEAR(AvxVnni, kQ5_0)
CARAT_TILE_LINEAR(AvxVnni, kQ8_0)
CARAT_TILE_LINEAR(AvxVnni, kQ4_1)
CARAT_TILE_LINEAR(AvxVnni, kQ5_1)

}  // namespace carat::kernels::avxvnni

#endif
