#include "convert/encoded_stream.h"

#include <algorithm>
#include <span>

#include "base/checked.h"
#include "base/error.h"
#include "base/sha256.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int64_t kWindowChunks = 16;

// Elements [begin, begin + n) of the tensor, and of what was written for them.
void compare(const SourceTensor& tensor, DType dtype, int64_t begin, int64_t n,
             const std::byte* written, Findings& findings) {
  std::vector<std::byte> raw;
  std::vector<float> values(static_cast<size_t>(n)), got(static_cast<size_t>(n));
  Transcoder::decode(tensor, begin, n, raw, values.data());
  quant::decode_row(dtype, written, got.data(), n);
  findings.weights += n;
  findings.weights_bit_exact += count_kept(values.data(), got.data(), n);
  findings.error.add(measure_error(values.data(), got.data(), n));
}

}  // namespace

void stream_encoded(ThreadPool& pool, const std::atomic<bool>* stop, const SourceTensor& tensor,
                    const EncodedTensor& encoded, const TranscodeRequest& request,
                    Findings* findings) try {
  constexpr int64_t kChunk = Transcoder::kChunk;
  const DType to = encoded.dtype;
  CHECK(to == request.to && tensor.columns % info(to).block_elements == 0);
  *findings = {};
  std::vector<std::byte> window;
  for (int64_t first = 0; first < tensor.elements; first += kWindowChunks * kChunk) {
    if (stop != nullptr && stop->load()) throw Interrupted();
    const int64_t elements = std::min(kWindowChunks * kChunk, tensor.elements - first);
    window.resize(static_cast<size_t>(row_bytes(to, elements)));
    encoded.file->read(encoded.offset + row_bytes(to, first), window);
    const int64_t n_chunks = ceil_div(elements, kChunk);
    std::vector<Findings> parts(static_cast<size_t>(n_chunks));
    pool.parallel_for(n_chunks, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        compare(tensor, to, first + i * kChunk, std::min(kChunk, elements - i * kChunk),
                window.data() + row_bytes(to, i * kChunk), parts[static_cast<size_t>(i)]);
      }
    });
    for (const Findings& part : parts) findings->add(part);
    request.sink(window);
    if (request.advance) request.advance(row_bytes(tensor.dtype, elements));
  }
} catch (const Error& e) {
  throw e.with_file(tensor.file->path()).with_place("tensor " + tensor.name);
}

std::string digest_with(const std::string& plan, const std::vector<Item>& items,
                        const std::vector<std::optional<EncodedTensor>>& encoded) {
  Sha256 sum;
  sum.update(std::as_bytes(std::span(plan)));
  std::vector<std::byte> window(size_t{1} << 20);
  for (size_t i = 0; i < items.size(); ++i) {
    if (!encoded[i]) continue;
    const int64_t bytes = items[i].target_bytes();
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(window.size())) {
      const auto n = std::min(static_cast<int64_t>(window.size()), bytes - at);
      const std::span<std::byte> part(window.data(), static_cast<size_t>(n));
      encoded[i]->file->read(encoded[i]->offset + at, part);
      sum.update(part);
    }
  }
  return to_hex(sum.digest());
}

}  // namespace carat::convert
