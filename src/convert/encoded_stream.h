// Writing tensors that somebody else has encoded (encoded_rows.h).
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "convert/encoded_rows.h"
#include "convert/plan.h"
#include "convert/transcode.h"

namespace carat::convert {

// As Transcoder::run, but what goes to request.sink is read, and compared with the source's
// weights. Throws Error naming the tensor.
void stream_encoded(ThreadPool& pool, const std::atomic<bool>* stop, const SourceTensor& tensor,
                    const EncodedTensor& encoded, const TranscodeRequest& request,
                    Findings* findings);

// A plan's digest, and what is encoded.
std::string digest_with(const std::string& plan, const std::vector<Item>& items,
                        const std::vector<std::optional<EncodedTensor>>& encoded);

}  // namespace carat::convert
