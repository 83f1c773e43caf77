#include "quantize/encoded_store.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace carat::quantize {
namespace {

TEST(EncodedStore, GivesBackWhatWasPutOnceItIsWhole) {
  const std::string folder = ::testing::TempDir() + "/encoded_store";
  std::filesystem::create_directories(folder);
  EncodedStore store(folder + "/out.gguf");
  EXPECT_TRUE(std::filesystem::is_empty(folder));  // its file has no name
  const Shape shape = {2, 2, 64};                  // 4 rows of 2 blocks of 18 bytes
  std::vector<std::byte> rows(36 * 4);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::byte>(i);
  const auto part = [&](int64_t row, int64_t n) {
    return std::span<const std::byte>(rows).subspan(static_cast<size_t>(36 * row),
                                                    static_cast<size_t>(36 * n));
  };
  store.put("other", DType::kQ8_0, {1, 32}, 0, part(0, 0));
  store.put("a", DType::kQ4_0, shape, 2, part(2, 2));
  EXPECT_FALSE(store.find("a").has_value());
  store.put("a", DType::kQ4_0, shape, 0, part(0, 1));
  store.put("a", DType::kQ4_0, shape, 0, part(0, 1));
  EXPECT_FALSE(store.find("a").has_value());
  store.put("a", DType::kQ4_0, shape, 1, part(1, 1));
  const auto found = store.find("a");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->dtype, DType::kQ4_0);
  std::vector<std::byte> got(rows.size());
  found->file->read(found->offset, got);
  EXPECT_TRUE(got == rows);
  std::vector<std::byte> one(36);
  store.read("a", 2, one);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), part(2, 1).begin()));
  // Another type begins anew.
  store.put("a", DType::kQ8_0, shape, 0, std::span<const std::byte>(rows).first(68));
  EXPECT_FALSE(store.find("a").has_value());
  store.erase("a");
  EXPECT_FALSE(store.find("a").has_value());
  EXPECT_FALSE(store.find("other").has_value());
}

}  // namespace
}  // namespace carat::quantize
