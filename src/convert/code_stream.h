// One tensor as codes and scales, as a stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "convert/coded_layout.h"
#include "convert/transcode.h"

namespace carat::convert {

struct CodeRequest {
  CodedLayout layout;
  // Gets the packed codes in order, on the caller's thread. May be empty.
  std::function<void(std::span<const std::byte>)> sink;
  // Asked after each window; false ends the stream early. May be empty.
  std::function<bool(const Findings& so_far)> keep_going;
  std::function<void(int64_t source_bytes)> advance;  // may be empty
};

// Codes that the source has already, grouped alike, are taken over and only their scales rounded;
// 4-bit codes with a BF16 scale per 32 weights are found on the lattice where they lie on it;
// everything else is fitted. Results do not depend on the number of threads.
//
// Fills `scales` with the bytes of all of them. False if keep_going ended it. Throws Error naming
// the tensor, Interrupted.
bool stream_codes(ThreadPool& pool, const std::atomic<bool>* stop, const SourceTensor& tensor,
                  const CodeRequest& request, Findings* found, std::vector<std::byte>* scales);

}  // namespace carat::convert
