// Encoding with an importance matrix, against llama.cpp's blocks for the same rows.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "quant/scheme.h"

namespace carat::quant {
namespace {

using Floats = std::vector<float>;

constexpr size_t kColumns = 256;

std::vector<std::byte> from_hex(const std::string& text) {
  std::vector<std::byte> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Floats floats_from(const std::vector<std::byte>& bytes) {
  Floats values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), 4 * values.size());
  return values;
}

// The lines of the file, by their first word.
std::map<std::string, std::vector<std::byte>> read_lines() {
  std::ifstream file(CARAT_SOURCE_DIR "/src/quant/testing/weighted_blocks.txt");
  std::map<std::string, std::vector<std::byte>> lines;
  std::string word, hex;
  while (file >> word >> hex) lines[word] = from_hex(hex);
  return lines;
}

double error_of(DType type, const Floats& x, const Floats& weights, const std::byte* blocks) {
  Floats y(x.size());
  decode_row(type, blocks, y.data(), static_cast<int64_t>(y.size()));
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += double{weights[i]} * (double{y[i]} - x[i]) * (double{y[i]} - x[i]);
  }
  return error;
}

void expect_no_worse(DType type, const Floats& x, const Floats& weights,
                     const std::vector<std::byte>& theirs, const char* what) {
  std::vector<std::byte> ours(theirs.size());
  encode_row(type, x.data(), ours.data(), static_cast<int64_t>(x.size()), weights.data());
  EXPECT_LE(error_of(type, x, weights, ours.data()), error_of(type, x, weights, theirs.data()))
      << name_of(type) << " " << what;
}

TEST(PeerWeighted, NoTypeLosesMore) {
  auto lines = read_lines();
  const Floats x = floats_from(lines.at("values"));
  const Floats importance = floats_from(lines.at("importance"));
  lines.erase("values");
  lines.erase("importance");
  ASSERT_EQ(importance.size(), kColumns);
  ASSERT_EQ(x.size() % kColumns, 0u);
  Floats plain, by_size;  // llama.cpp minimises something like the second
  for (size_t row = 0; row < x.size(); row += kColumns) {
    double square = 0;
    for (size_t c = 0; c < kColumns; ++c) square += double{x[row + c]} * x[row + c] / kColumns;
    for (size_t c = 0; c < kColumns; ++c) {
      const double size = std::sqrt(square + double{x[row + c]} * x[row + c]);
      plain.push_back(importance[c]);
      by_size.push_back(static_cast<float>(importance[c] * size));
    }
  }
  EXPECT_EQ(lines.size(), 12u);
  for (const auto& [name, theirs] : lines) {
    const auto type = dtype_from_name(name);
    ASSERT_TRUE(type) << name;
    ASSERT_EQ(static_cast<int64_t>(theirs.size()),
              row_bytes(*type, static_cast<int64_t>(x.size())));
    expect_no_worse(*type, x, plain, theirs, "by importance");
    expect_no_worse(*type, x, by_size, theirs, "by importance and size");
  }
}

}  // namespace
}  // namespace carat::quant
