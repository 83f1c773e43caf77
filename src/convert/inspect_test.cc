#include "convert/inspect.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"

namespace carat::convert {
namespace {

using testing::HfCheckpoint;
using testing::TemporaryFolder;
using testing::Training;

HfCheckpoint checkpoint(const std::string& folder, const char* size, Training rule) {
  HfCheckpoint c;
  c.folder = folder;
  c.config = model::config_of_size(size);
  c.rule = rule;
  return c;
}

void convert_to(const std::string& source, const std::string& target, Format format) {
  ConvertOptions o;
  o.source = source;
  o.target = target;
  o.format = format;
  (void)convert(o);
}

InspectReport inspect_path(const std::string& path, bool full = false,
                           const std::string& against = "") {
  InspectOptions o;
  o.path = path;
  o.full = full;
  o.against = against;
  o.threads = 2;
  return inspect(o);
}

int64_t sum_tensors(const std::vector<InspectReport::Group>& groups) {
  int64_t n = 0;
  for (const InspectReport::Group& g : groups) n += g.tensors;
  return n;
}

TEST(Inspect, TellsWhatACheckpointIs) {
  TemporaryFolder folder("inspect");
  HfCheckpoint c = checkpoint(folder / "hf", "tiny", Training::kAbsmax7);
  c.naming = model::Naming::kHfMultimodal;
  c.tower = true;
  write_hf(c);
  const InspectReport r = inspect_path(folder / "hf");
  EXPECT_EQ(r.kind, "Hugging Face directory");
  EXPECT_EQ(r.config, c.config);
  EXPECT_EQ(r.parameters, model::parameter_count(c.config));
  EXPECT_TRUE(r.has_tokenizer);
  EXPECT_EQ(r.tokenizer_size, testing::small_vocab().size());
  ASSERT_EQ(r.types.size(), 1u);
  EXPECT_EQ(r.types[0].name, "BF16");
  EXPECT_EQ(r.types[0].weights, r.parameters);
  EXPECT_EQ(r.skipped.size(), 3u);  // tower, projection, K of a layer that shares it
  EXPECT_EQ(sum_tensors(r.types) + sum_tensors(r.skipped), static_cast<int64_t>(r.tensors.size()));
  EXPECT_GT(r.lattice.blocks, 0);
  EXPECT_EQ(r.lattice.blocks_on_lattice, r.lattice.blocks);
  EXPECT_GT(r.lattice.absmax7, r.lattice.blocks / 2);
  EXPECT_TRUE(r.notes.empty());
  const Json j = to_json(r);
  EXPECT_EQ(j["tensors"].size(), r.tensors.size());
  EXPECT_EQ(j["parameters"].get<int64_t>(), r.parameters);
}

TEST(Inspect, FullJudgesEveryBlock) {
  TemporaryFolder folder("inspect_full");
  HfCheckpoint c = checkpoint(folder / "hf", "tinykv", Training::kSigned8);
  c.config.vocab_size = 40000;  // more blocks than the sample takes
  c.change = [](model::TensorRef ref, std::vector<float>& w) {
    if (ref.kind == model::TensorKind::kTokenEmbedding) w[w.size() / 2 + 32 * 100] = 0.77f;
  };
  write_hf(c);
  const InspectReport sampled = inspect_path(folder / "hf");
  EXPECT_TRUE(sampled.lattice_sampled);
  EXPECT_EQ(sampled.lattice.blocks, sampled.lattice.blocks_on_lattice);
  const InspectReport full = inspect_path(folder / "hf", true);
  EXPECT_FALSE(full.lattice_sampled);
  EXPECT_EQ(full.lattice.blocks - full.lattice.blocks_on_lattice, 1);
  for (const InspectedTensor& t : full.tensors) {
    if (t.lattice) {
      EXPECT_EQ(t.lattice->weights * 2, t.bytes) << t.name;
    }
  }
}

TEST(Inspect, AgainstFindsEveryDifference) {
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    TemporaryFolder folder("against");
    write_hf(checkpoint(folder / "hf", size, Training::kSigned8));
    convert_to(folder / "hf", folder / "q4.gguf", Format::kGgufQ4_0);
    const InspectReport same = inspect_path(folder / "hf", false, folder / "q4.gguf");
    EXPECT_TRUE(same.comparison.all_equal());
    EXPECT_EQ(same.comparison.weights, same.parameters);
    EXPECT_TRUE(same.different.empty());
    EXPECT_LT(same.comparison.relative_rms, 3e-3);
    const InspectReport back = inspect_path(folder / "q4.gguf", false, folder / "hf");
    EXPECT_TRUE(back.comparison.all_equal());

    HfCheckpoint other = checkpoint(folder / "other", size, Training::kSigned8);
    other.change = [](model::TensorRef ref, std::vector<float>& w) {
      if (ref.kind == model::TensorKind::kO && ref.layer == 2) w[7] = 0.5f, w[8] = -w[8];
    };
    write_hf(other);
    const InspectReport r = inspect_path(folder / "hf", false, folder / "other");
    ASSERT_EQ(r.different.size(), 1u);
    EXPECT_NE(r.different[0].find("layers.2.self_attn.o_proj"), std::string::npos);
    const int64_t unequal = r.comparison.weights - r.comparison.equal;
    EXPECT_GE(unequal, 1);  // w[8] may have been zero
    EXPECT_LE(unequal, 2);
  }
}

TEST(Inspect, RefusesToCompareOtherModels) {
  TemporaryFolder folder("others");
  write_hf(checkpoint(folder / "a", "tiny", Training::kSigned8));
  write_hf(checkpoint(folder / "b", "tinykv", Training::kSigned8));
  EXPECT_THROW((void)inspect_path(folder / "a", false, folder / "b"), Error);
}

TEST(Inspect, NamesWhatIsMissing) {
  TemporaryFolder folder("odd");
  HfCheckpoint c = checkpoint(folder / "hf", "tinykv", Training::kSigned8);
  write_hf(c);
  // The same tensors under a config of three more layers.
  Json config = model::config_to_hf(c.config);
  config["num_hidden_layers"] = c.config.n_layers + 3;
  for (int i = 0; i < 3; ++i) {
    config["layer_types"].push_back(i == 2 ? "full_attention" : "sliding_attention");
  }
  testing::write_text(folder / "hf/config.json", to_json_text(config));
  const InspectReport r = inspect_path(folder / "hf");
  EXPECT_TRUE(std::any_of(r.notes.begin(), r.notes.end(), [](const std::string& n) {
    return n == "the tensor model.layers.6.input_layernorm.weight is missing";
  }));
}

}  // namespace
}  // namespace carat::convert
