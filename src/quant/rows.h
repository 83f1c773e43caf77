// A row as its blocks, one after another; a row needs no alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace carat::quant {

// A block's weights with a mean of 1 in `out`, so that no sum over- or underflows; null where all
// are 0 or there are none: such elements count alike.
template <int kElements>
const float* block_weights(const float* weights, float* out) noexcept {
  if (weights == nullptr) return nullptr;
  double sum = 0;
  for (int i = 0; i < kElements; ++i) sum += weights[i];
  if (!(sum > 0)) return nullptr;
  for (int i = 0; i < kElements; ++i) {
    out[i] = static_cast<float>(weights[i] / (sum / kElements));
  }
  return out;
}

// encode_block: const float* x, const float* weights (may be null) -> Block.
template <int kElements, typename EncodeBlock>
void encode_blocks(const float* x, const float* weights, std::byte* row, int64_t n,
                   EncodeBlock encode_block) noexcept {
  float scaled[kElements];
  for (int64_t i = 0; i < n; i += kElements) {
    const float* const w =
        block_weights<kElements>(weights == nullptr ? nullptr : weights + i, scaled);
    const auto block = encode_block(x + i, w);
    std::memcpy(row, &block, sizeof(block));
    row += sizeof(block);
  }
}

template <typename Block, int kElements>
void decode_blocks(const std::byte* row, float* out, int64_t n,
                   void (*decode_block)(const Block&, float*) noexcept) noexcept {
  for (int64_t i = 0; i < n; i += kElements, row += sizeof(Block)) {
    Block block;
    std::memcpy(&block, row, sizeof(block));
    decode_block(block, out + i);
  }
}

}  // namespace carat::quant
