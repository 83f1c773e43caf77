// What conversions of any kind of checkpoint report about a tensor, and refuse to lose.
#pragma once

#include "convert/convert.h"
#include "convert/transcode.h"

namespace carat::convert {

// Whether a tensor in bfloat16 keeps what it is: a 4-bit lattice, which checkpoints of
// quantization-aware training are, can be found again if its scales have at most binary16's
// precision. `scales`: their type, of codes.
[[nodiscard]] bool is_kept_by_bf16(DType dtype, DType scales);

// Throws Error naming the tensor and --accept rounded-weights if weights changed and nobody asked
// for it. Q4_0 is only written where it was asked for. `scales`: of codes in the source.
void check_rounded(const TensorReport& tensor, DType scales, const ConvertOptions& options,
                   Losses* happened);

// Copies what became of the weights into the report.
void set_findings(TensorReport& tensor, const Findings& findings);

// Adds a tensor to the report and its figures to the totals.
void add_tensor(ConvertReport& report, TensorReport tensor, int64_t source_bytes);

}  // namespace carat::convert
