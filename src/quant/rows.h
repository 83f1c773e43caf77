// A row as its blocks, one after another; a row needs no alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace carat::quant {

// encode_block: const float* -> Block.
template <int kElements, typename EncodeBlock>
void encode_blocks(const float* x, std::byte* row, int64_t n, EncodeBlock encode_block) noexcept {
  for (int64_t i = 0; i < n; i += kElements) {
    const auto block = encode_block(x + i);
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
