// Every quantized type against what llama.cpp reads in the same bytes.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "quant/scheme.h"

namespace carat::quant {
namespace {

std::vector<std::byte> from_hex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

TEST(PeerBlocks, DecodeToTheSameBits) {
  std::ifstream file(CARAT_SOURCE_DIR "/src/quant/testing/peer_blocks.txt");
  std::set<DType> seen;
  std::string name, blocks, floats;
  while (file >> name >> blocks >> floats) {
    const std::optional<DType> type = dtype_from_name(name);
    ASSERT_TRUE(type) << name;
    const std::vector<std::byte> row = from_hex(blocks), bits = from_hex(floats);
    const auto n = static_cast<int64_t>(bits.size() / 4);
    ASSERT_EQ(static_cast<int64_t>(row.size()), row_bytes(*type, n)) << name;
    std::vector<float> expected(static_cast<size_t>(n)), got(expected.size());
    std::memcpy(expected.data(), bits.data(), bits.size());
    decode_row(*type, row.data(), got.data(), n);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
          << name << " element " << i;
    }
    seen.insert(*type);
  }
  for (const DTypeInfo& i : all_dtypes()) {
    EXPECT_TRUE(i.block_elements == 1 || i.gguf_id < 0 || seen.count(i.dtype) == 1) << "no block of " << i.name;
  }
}

}  // namespace
}  // namespace carat::quant
