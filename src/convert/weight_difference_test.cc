#include "convert/weight_difference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using testing::HfCheckpoint;
using testing::TemporaryFolder;
using testing::Training;

void make_source(const std::string& path) {
  HfCheckpoint c;
  c.folder = path;
  c.config = model::config_of_size("tinymoe");
  c.rule = Training::kNone;
  write_hf(c);
}

void convert_to(const std::string& source, const std::string& target, const char* recipe) {
  ConvertOptions o;
  o.source = source;
  o.target = target;
  o.format = Format::kGguf;
  o.recipe.base = recipe;
  (void)convert(o);
}

std::vector<WeightDifference> measure(const std::string& a, const std::string& b, int threads) {
  ThreadPool pool(threads);
  return measure_weight_differences(io::open_checkpoint(a), io::open_checkpoint(b), pool);
}

const WeightDifference& find(const std::vector<WeightDifference>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& d) { return d.name == name; });
  EXPECT_NE(found, all.end()) << name;
  return *found;
}

// Flips the sign of every element of a BF16 tensor: the difference is twice the weights.
void negate(const std::string& path, const std::string& name) {
  const io::Checkpoint checkpoint = io::open_checkpoint(path);
  const io::TensorEntry entry = *checkpoint.tensors->find(name);
  ASSERT_EQ(entry.dtype, DType::kBF16);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes(static_cast<size_t>(entry.bytes), '\0');
  file.seekg(entry.offset);
  file.read(bytes.data(), entry.bytes);
  for (size_t i = 1; i < bytes.size(); i += 2) bytes[i] = static_cast<char>(bytes[i] ^ 0x80);
  file.seekp(entry.offset);
  file.write(bytes.data(), entry.bytes);
}

TEST(WeightDifference, IsNothingForTheSameWeightsInAnotherFile) {
  TemporaryFolder folder("difference_same");
  make_source(folder / "hf");
  convert_to(folder / "hf", folder / "b.gguf", "bf16");
  const auto all = measure(folder / "hf", folder / "b.gguf", 2);
  int64_t weights = 0;
  for (const WeightDifference& d : all) {
    EXPECT_EQ(d.relative_rms, 0) << d.name;
    EXPECT_EQ(d.largest, 0) << d.name;
    weights += d.weights;
  }
  EXPECT_EQ(weights, model::parameter_count(model::config_of_size("tinymoe")));
}

TEST(WeightDifference, OfANegatedTensorIsTwiceTheWeights) {
  TemporaryFolder folder("difference_negated");
  make_source(folder / "hf");
  convert_to(folder / "hf", folder / "b.gguf", "bf16");
  const std::string name = "blk.2.attn_q.weight";
  negate(folder / "b.gguf", name);
  const auto all = measure(folder / "hf", folder / "b.gguf", 2);
  for (const WeightDifference& d : all) EXPECT_EQ(d.relative_rms != 0, d.name == name) << d.name;
  const WeightDifference& d = find(all, name);
  EXPECT_EQ(d.relative_rms, 2);
  EXPECT_GT(d.largest, 2);
  EXPECT_EQ(d.layer, 2);
  EXPECT_EQ(d.dtype, DType::kBF16);
  EXPECT_EQ(d.bytes, 2 * d.weights);
}

TEST(WeightDifference, OfBlocksIsWhatEncodingThemLoses) {
  TemporaryFolder folder("difference_blocks");
  make_source(folder / "hf");
  convert_to(folder / "hf", folder / "f.gguf", "bf16");
  convert_to(folder / "hf", folder / "q.gguf", "q8_0");
  const auto all = measure(folder / "hf", folder / "q.gguf", 1);
  const WeightDifference& d = find(all, "blk.1.attn_output.weight");
  ASSERT_EQ(d.dtype, DType::kQ8_0);
  EXPECT_EQ(d.bytes, d.weights / 32 * 34);

  const auto decoded = [&](const std::string& path) {
    const io::Checkpoint checkpoint = io::open_checkpoint(path);
    const io::TensorEntry* entry = checkpoint.tensors->find(d.name);
    std::vector<float> values(static_cast<size_t>(d.weights));
    quant::decode_row(entry->dtype, checkpoint.tensors->view(*entry).data, values.data(),
                      d.weights);
    return values;
  };
  const std::vector<float> a = decoded(folder / "f.gguf"), b = decoded(folder / "q.gguf");
  double difference = 0, squared = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{b[i]} - a[i]) * (double{b[i]} - a[i]);
    squared += double{a[i]} * a[i];
    largest = std::max(largest, std::abs(double{b[i]} - a[i]));
  }
  EXPECT_NEAR(d.relative_rms, std::sqrt(difference / squared), 1e-9);
  EXPECT_NEAR(d.largest, largest / std::sqrt(squared / static_cast<double>(a.size())), 1e-9);
  EXPECT_GT(d.relative_rms, 0.002);
}

TEST(WeightDifference, DoesNotDependOnTheNumberOfThreads) {
  TemporaryFolder folder("difference_threads");
  make_source(folder / "hf");
  convert_to(folder / "hf", folder / "q.gguf", "q4_0");
  const auto one = measure(folder / "hf", folder / "q.gguf", 1);
  const auto three = measure(folder / "hf", folder / "q.gguf", 3);
  ASSERT_EQ(one.size(), three.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].relative_rms, three[i].relative_rms) << one[i].name;
    EXPECT_EQ(one[i].largest, three[i].largest) << one[i].name;
  }
}

TEST(WeightDifference, IsOnlyOfTheSameNetwork) {
  const model::Config tiny = model::config_of_size("tiny");
  model::Config other = tiny;
  EXPECT_TRUE(are_same_network(tiny, other));
  other.tied_embeddings = false;
  EXPECT_TRUE(are_same_network(tiny, other));
  EXPECT_FALSE(are_same_network(tiny, model::config_of_size("tinykv")));
  EXPECT_FALSE(are_same_network(model::config_of_size("tinymoe"), tiny));
}

TEST(WeightDifference, EndsWhenItIsToldTo) {
  TemporaryFolder folder("difference_stop");
  make_source(folder / "hf");
  ThreadPool pool(1);
  const std::atomic<bool> stop = true;
  const io::Checkpoint a = io::open_checkpoint(folder / "hf");
  EXPECT_THROW((void)measure_weight_differences(a, a, pool, {.progress = {}, .stop = &stop}),
               Interrupted);
}

}  // namespace
}  // namespace carat::convert
