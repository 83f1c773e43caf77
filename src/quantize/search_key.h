// What the figures of a search depend on, known before the model reads anything.
#pragma once

#include <span>
#include <vector>

#include "quantize/job.h"
#include "quantize/measure_log.h"
#include "quantize/search_text.h"

namespace carat::quantize {

// The model (its config, all small tensors, and 1 MiB of each larger one, evenly), the chunks, the
// importance of columns (the job's imatrix, or else all of its text), the types with what their
// encoders do, and the instruction set.
[[nodiscard]] std::vector<LogKey> search_key(const Job& job, const SearchText& text,
                                             std::span<const DType> types);

}  // namespace carat::quantize
