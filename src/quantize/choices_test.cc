// Which types matrices may have, on a checkpoint whose values are made for it.
#include "quantize/choices.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "base/error.h"
#include "convert/convert.h"
#include "convert/testing/checkpoints.h"
#include "kernels/cpu/dispatch.h"
#include "quantize/measure_log.h"

namespace carat::quantize {
namespace {

using model::TensorKind;

class ChoicesTest : public testing::Test {
 protected:
  // One matrix of the tiny model.
  void make(TensorKind kind, std::function<void(std::vector<float>&)> change = {}) {
    convert::testing::HfCheckpoint c;
    c.folder = folder_ / "hf";
    c.config = model::config_of_size("tiny");
    c.rule = convert::testing::Training::kNone;
    c.change = [&](model::TensorRef ref, std::vector<float>& values) {
      if (change && ref.kind == kind && ref.layer == 1) change(values);
    };
    convert::testing::write_hf(c);
    open(c.folder, kind);
  }

  void open(const std::string& path, TensorKind kind) {
    model_ = std::make_unique<model::Model>(model::load_model(path));
    checkpoint_ = io::open_checkpoint(path);
    rows_ = std::make_unique<SourceRows>(checkpoint_, model_->config());
    const model::TensorRef ref{kind, 1};
    plan_ = {ref, model::gguf_name(ref), DType::kF32, model::shape_of(model_->config(), ref)};
  }

  Job job() {
    return {*model_, *rows_, {plan_}, {}, imatrix_, store_, 0, pool_, kernels::choose_kernels({}),
            {},      &stop_};
  }

  MatrixChoices choices(std::span<const DType> allowed, const ChoiceOptions& options = {}) {
    return list_choices(job(), allowed, options).at(0);
  }
  static std::vector<DType> types_of(const MatrixChoices& c) {
    std::vector<DType> types;
    for (const TypeChoice& t : c.types) types.push_back(t.dtype);
    return types;
  }

  convert::testing::TemporaryFolder folder_{"choices"};
  std::unique_ptr<model::Model> model_;
  io::Checkpoint checkpoint_;
  std::unique_ptr<SourceRows> rows_;
  MatrixPlan plan_;
  const io::Imatrix* imatrix_ = nullptr;
  EncodedStore store_{folder_ / "store"};
  ThreadPool pool_{2};
  std::atomic<bool> stop_{false};
};

constexpr DType kSome[] = {DType::kQ4_0, DType::kQ8_0, DType::kF16};

TEST_F(ChoicesTest, ATypeThatDoesNotHoldEveryValueIsNone) {
  const auto large = [](std::vector<float>& values) { values[values.size() - 3] = 1e5f; };
  make(TensorKind::kUp, large);
  // The last row is not among the four that are tried.
  const ChoiceOptions few{.sampled = 4 * plan_.shape.back()};
  EXPECT_EQ(types_of(choices(kSome, few)), (std::vector{DType::kQ4_0, DType::kQ8_0}));
  EXPECT_NE(types_of(choices(kSome)).back(), DType::kF16);
  make(TensorKind::kUp);
  EXPECT_EQ(types_of(choices(kSome, few)), (std::vector{DType::kQ4_0, DType::kQ8_0, DType::kF16}));
}

TEST_F(ChoicesTest, AnImportanceOfZerosCountsAllColumnsAlike) {
  make(TensorKind::kUp);
  const MatrixChoices plain = choices(kSome);
  io::Imatrix zeros;
  zeros.entries.push_back(
      {plan_.name, std::vector<float>(static_cast<size_t>(plan_.shape.back())), {5}});
  imatrix_ = &zeros;
  const MatrixChoices found = choices(kSome);
  ASSERT_EQ(types_of(found), types_of(plain));
  for (size_t i = 0; i < found.types.size(); ++i) {
    EXPECT_EQ(found.types[i].error, plain.types[i].error);
  }
  EXPECT_GT(found.types[0].error, found.types[1].error);
}

TEST_F(ChoicesTest, TheSourcesOwnTypeHasNoError) {
  make(TensorKind::kUp);
  constexpr DType kAll[] = {DType::kQ4_0, DType::kBF16, DType::kF32};
  const MatrixChoices found = choices(kAll);
  EXPECT_EQ(types_of(found), (std::vector{DType::kQ4_0, DType::kBF16}));
  EXPECT_EQ(found.types[1].error, 0);

  // Codes of a quantized one would not all come out the same again.
  convert::ConvertOptions c;
  c.source = folder_ / "hf";
  c.target = folder_ / "q.gguf";
  c.format = convert::Format::kGguf;
  c.recipe.base = "q4_k";
  c.accepted.add(convert::Loss::kRoundedWeights);
  (void)convert::convert(c);
  open(c.target, TensorKind::kDown);
  constexpr DType kQuantized[] = {DType::kQ3_K, DType::kQ4_K, DType::kQ8_0};
  const MatrixChoices kept = choices(kQuantized);
  EXPECT_EQ(types_of(kept), (std::vector{DType::kQ3_K, DType::kQ4_K}));
  EXPECT_EQ(kept.types[1].error, 0);
  EXPECT_GT(kept.types[0].error, 0);
}

TEST_F(ChoicesTest, WhatWasTriedIsNotTriedAgain) {
  make(TensorKind::kUp);
  const std::vector<LogKey> key = {{"model", "1", "another model"}};
  const std::vector<TypeChoice> kept = {{DType::kQ8_0, 0, 7, 0.5}};
  const MatrixChoices plain = choices(kSome);
  {
    MeasureLog log(folder_ / "state", key, {});
    EXPECT_EQ(types_of(choices(kSome, {.log = &log})), types_of(plain));
    ASSERT_NE(log.find_types(plan_.name), nullptr);
    EXPECT_EQ(log.find_types(plan_.name)->size(), plain.types.size());
    log.add_types(plan_.name, kept);
  }
  MeasureLog log(folder_ / "state", key, {});
  const MatrixChoices found = choices(kSome, {.log = &log});
  EXPECT_EQ(types_of(found), std::vector{DType::kQ8_0});
  EXPECT_EQ(found.types[0].error, 7);
  EXPECT_EQ(found.types[0].bytes, bytes_in_file(DType::kQ8_0, plan_.shape));
}

TEST_F(ChoicesTest, StopsWhenAsked) {
  make(TensorKind::kUp);
  stop_ = true;
  EXPECT_THROW((void)choices(kSome), Interrupted);
}

TEST_F(ChoicesTest, TheSmallestFileIsKnownWithoutValues) {
  make(TensorKind::kUp);
  EXPECT_EQ(smallest_bytes(job(), kSome), bytes_in_file(DType::kQ4_0, plan_.shape));
  EXPECT_EQ(smallest_bytes(job(), kSome), choices(kSome).types[0].bytes);
}

}  // namespace
}  // namespace carat::quantize
