// Products with tiles of the formats with one scale per row.
#if defined(__x86_64__)

#include "kernels/cpu/avxvnni/isa.h"
#include "kernels/cpu/avxvnni/table.h"
#include "kernels/cpu/tile/channel.h"
#include "kernels/cpu/tile/linear.h"

namespace carat::kernels::avxvnni {

CARAT_TILE_LINEAR(AvxVnni, kC2)
CARAT_TILE_LINEAR(AvxVnni, kC4)
CARAT_TILE_LINEAR(AvxVnni, kC8)
CARAT_TILE_STATIC(AvxVnni, kC2)
CARAT_TILE_STATIC(AvxVnni, kC4)
CARAT_TILE_STATIC(AvxVnni, kC8)

}  // namespace carat::kernels::avxvnni

#endif
