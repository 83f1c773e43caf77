#include "io/gguf_experts.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "io/testing/temp_dir.h"

namespace carat::io {
namespace {

using testing::TempDir;

std::vector<std::byte> bytes_of(int64_t n, int first) {
  std::vector<std::byte> bytes(static_cast<size_t>(n));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(static_cast<size_t>(first) + i);
  }
  return bytes;
}

void write(const std::string& path, const std::vector<TensorSpec>& specs) {
  GgufFields fields;
  fields.add_string("general.architecture", "gemma4");
  GgufWriter writer(path, fields, specs);
  int first = 0;
  for (const TensorSpec& s : specs)
    writer.write(s.name, bytes_of(*byte_count(s.dtype, s.shape), first += 40));
  writer.finish();
}

// Two experts of one row of 32 values: 18 bytes each.
const Shape kShape = {2, 1, 32};

TEST(GgufExperts, GateAndUpAreOneTensor) {
  TempDir dir;
  const std::string path = dir.file("a.gguf");
  write(path, {{"before", DType::kF32, {3}},
               {"blk.0.ffn_up_exps.weight", DType::kQ4_0, kShape},
               {"blk.0.ffn_gate_exps.weight", DType::kQ4_0, kShape},
               {"after", DType::kF32, {3}}});
  const Checkpoint checkpoint = open_checkpoint(path);
  const TensorSource& source = *checkpoint.tensors;
  ASSERT_EQ(source.entries().size(), 3u);
  EXPECT_EQ(source.find("blk.0.ffn_gate_exps.weight"), nullptr);
  EXPECT_EQ(source.find("blk.0.ffn_up_exps.weight"), nullptr);
  const TensorEntry& both = *source.find("blk.0.ffn_gate_up_exps.weight");
  EXPECT_EQ(both.shape, (Shape{2, 2, 32}));
  EXPECT_EQ(both.bytes, 72);
  EXPECT_EQ(source.path_of(both), path);
  EXPECT_EQ(source.paths(), std::vector<std::string>{path});
  EXPECT_TRUE(is_joined(source.file_of(both)));
  EXPECT_FALSE(is_joined(source.file_of(*source.find("after"))));
  EXPECT_EQ(checkpoint.gguf->metadata().get_string("general.architecture"), "gemma4");

  const auto up = bytes_of(36, 80), gate = bytes_of(36, 120);
  std::vector<std::byte> want;
  for (int expert = 0; expert < 2; ++expert) {
    want.insert(want.end(), gate.begin() + 18 * expert, gate.begin() + 18 * expert + 18);
    want.insert(want.end(), up.begin() + 18 * expert, up.begin() + 18 * expert + 18);
  }
  for (int64_t begin = 0; begin < 72; begin += 7) {
    for (int64_t n = 1; begin + n <= 72; n += 5) {
      std::vector<std::byte> got(static_cast<size_t>(n));
      source.file_of(both).read(both.offset + begin, got);
      EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin() + begin)) << begin << " " << n;
    }
  }
  std::vector<std::byte> past(2);
  EXPECT_THROW(source.file_of(both).read(71, past), Error);
  const TensorView view = source.view(both);
  EXPECT_EQ(std::vector<std::byte>(view.bytes().begin(), view.bytes().end()), want);
  EXPECT_EQ(source.view(both).data, view.data);
  source.release(both, 0, both.bytes);
  const TensorView after = source.view(*source.find("after"));
  EXPECT_EQ(std::vector<std::byte>(after.bytes().begin(), after.bytes().end()), bytes_of(12, 160));
}

TEST(GgufExperts, OthersStayAsTheyAre) {
  TempDir dir;
  const char* gate = "blk.0.ffn_gate_exps.weight";
  const char* up = "blk.0.ffn_up_exps.weight";
  const std::vector<std::vector<TensorSpec>> cases = {
      {{gate, DType::kQ4_0, kShape}},
      {{up, DType::kQ4_0, kShape}},
      {{gate, DType::kQ4_0, kShape}, {up, DType::kQ8_0, kShape}},
      {{gate, DType::kQ4_0, kShape}, {up, DType::kQ4_0, {2, 2, 32}}},
      {{gate, DType::kQ4_0, {2, 32}}, {up, DType::kQ4_0, {2, 32}}},
      {{gate, DType::kQ4_0, kShape},
       {up, DType::kQ4_0, kShape},
       {"blk.0.ffn_gate_up_exps.weight", DType::kQ4_0, {2, 2, 32}}}};
  for (const std::vector<TensorSpec>& specs : cases) {
    write(dir.file("a.gguf"), specs);
    const Checkpoint checkpoint = open_checkpoint(dir.file("a.gguf"));
    EXPECT_EQ(checkpoint.tensors->entries().size(), specs.size());
    for (const TensorSpec& s : specs) EXPECT_NE(checkpoint.tensors->find(s.name), nullptr);
  }
}

}  // namespace
}  // namespace carat::io
