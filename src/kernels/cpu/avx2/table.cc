#include "kernels/cpu/avx2/table.h"
namespace carat::kernels::avx2 {
}
