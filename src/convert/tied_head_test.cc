#include "convert/tied_head.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"

namespace carat::convert {
namespace {

using testing::TemporaryFolder;

// A tied checkpoint with a stored output matrix: the embedding's bytes, one of them changed or not.
std::string with_head(const TemporaryFolder& folder, bool changed) {
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tinykv");
  write_hf(c);
  const io::Checkpoint from = io::open_checkpoint(c.folder);
  struct Tensor {
    io::TensorSpec spec;
    std::vector<std::byte> bytes;
  };
  std::vector<Tensor> tensors;
  const auto read = [&](const io::TensorEntry& e, const std::string& name) {
    tensors.push_back(
        {{name, e.dtype, e.shape}, std::vector<std::byte>(static_cast<size_t>(e.bytes))});
    from.tensors->file_of(e).read(e.offset, tensors.back().bytes);
  };
  for (const io::TensorEntry& e : from.tensors->entries()) read(e, e.name);
  const std::string table =
      model::name_of(model::TensorRef{model::TensorKind::kTokenEmbedding, -1}, c.naming);
  read(*from.tensors->find(table), "lm_head.weight");
  std::vector<std::byte>& head = tensors.back().bytes;
  if (changed) head[head.size() - 2] ^= std::byte{1};  // the last bit of the last weight
  const std::string to = folder / "with_head";
  std::filesystem::create_directories(to);
  std::vector<io::TensorSpec> specs;
  for (const Tensor& t : tensors) specs.push_back(t.spec);
  const auto writer = io::write_safetensors_directory(to, specs, int64_t{1} << 30);
  for (const Tensor& t : tensors) writer->write(t.spec.name, t.bytes);
  writer->finish();
  std::filesystem::copy_file(c.folder + "/config.json", to + "/config.json");
  return to;
}

TEST(TiedHead, IsDroppedOnlyIfItIsTheEmbedding) {
  for (const bool changed : {false, true}) {
    TemporaryFolder folder("tied_head");
    ConvertOptions options;
    options.source = with_head(folder, changed);
    options.target = folder / "out.gguf";
    options.format = Format::kGgufBf16;
    if (!changed) {
      const ConvertReport report = convert(options);
      EXPECT_EQ(report.weights_bit_exact, report.weights);
      continue;
    }
    try {
      (void)convert(options);
      FAIL();
    } catch (const Error& e) {
      const std::string text = e.what();
      EXPECT_NE(text.find("lm_head.weight"), std::string::npos) << text;
      EXPECT_NE(text.find("tie_word_embeddings"), std::string::npos) << text;
    }
    EXPECT_FALSE(std::filesystem::exists(options.target));
  }
}

}  // namespace
}  // namespace carat::convert
