#include <gtest/gtest.h>

#include <filesystem>
#include <vector>

#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "io/testing/temp_dir.h"

namespace carat::io {
namespace {

namespace fs = std::filesystem;

std::vector<TensorSpec> sample_specs() {
  return {{"scale", DType::kF32, {}},
          {"a \"quoted\" name", DType::kF32, {7}},
          {"embed.weight", DType::kBF16, {5, 3}},
          {"experts", DType::kBF16, {2, 3, 5}}};
}

void fill(TensorWriter& writer) {
  for (const TensorSpec& s : writer.specs()) {
    writer.write(s.name,
                 std::vector<std::byte>(static_cast<size_t>(*byte_count(s.dtype, s.shape))));
  }
  writer.finish();
}

int64_t size_of(const std::string& path) { return static_cast<int64_t>(fs::file_size(path)); }

TEST(WriterSize, OfGguf) {
  const testing::TempDir dir;
  std::vector<TensorSpec> specs = sample_specs();
  specs.push_back({"blocks", DType::kQ6_K, {3, 256}});
  for (const char* text : {"", "a", "twelve bytes"}) {
    GgufFields fields;
    fields.add_string("general.name", text);
    GgufWriter writer(dir.file("a.gguf"), fields, specs);
    fill(writer);
    EXPECT_EQ(gguf_file_bytes(fields, specs), size_of(dir.file("a.gguf"))) << text;
  }
  EXPECT_EQ(gguf_file_bytes({}, {}), 32);  // 24 bytes of head, padded
}

TEST(WriterSize, OfOneSafetensorsFileAndOfShards) {
  for (const int64_t shard : {1 << 20, 60, 30}) {
    const testing::TempDir dir;
    fill(*write_safetensors_directory(dir.path(), sample_specs(), shard));
    int64_t bytes = 0;
    for (const auto& file : fs::directory_iterator(dir.path())) bytes += size_of(file.path());
    EXPECT_EQ(safetensors_directory_bytes(sample_specs(), shard), bytes) << shard;
  }
}

}  // namespace
}  // namespace carat::io
