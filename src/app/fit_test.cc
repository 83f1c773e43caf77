#include "app/fit.h"

#include <gtest/gtest.h>

#include "app/options.h"
#include "app/traffic.h"
#include "model/kv_cache.h"

namespace carat::app {
namespace {

using kernels::KvType;

model::Weights q4_0_weights(const char* size) {
  return model::weights_of_shape(model::config_of_size(size), [](model::TensorRef ref) {
    const bool keep = model::row_of(ref.kind).cls == model::TensorClass::kKeep;
    return model::StoredType{keep ? DType::kF32 : DType::kQ4_0};
  });
}

FitInput input_of(int64_t memory, int64_t context) {
  FitInput input;
  input.memory = memory;
  input.context = context;
  input.bandwidth = 40e9;
  return input;
}

TEST(Fit, PartsAddUpAndTheSpeedIsBandwidthOverBytes) {
  const model::Weights weights = q4_0_weights("12B");
  FitInput input = input_of(int64_t{16'000'000'000}, 8192);
  const Fit f = fit_model(weights, 30'000'000, input);
  EXPECT_TRUE(f.fits);
  EXPECT_EQ(f.kv.total(), model::kv_bytes(weights.config, KvType::kI8, 8192, kFitChunk));
  EXPECT_EQ(f.activations, model::activation_bytes(weights, KvType::kI8, kFitChunk, 1));
  EXPECT_GT(f.activations, kFitChunk * weights.config.dim * 4);
  // Q4_0 has 18 bytes for 32 weights, of which nearly all are in matrices.
  const double matrices = static_cast<double>(model::parameter_count(weights.config)) * 18 / 32;
  EXPECT_NEAR(static_cast<double>(f.weights.packed), matrices, 0.005 * matrices);
  EXPECT_EQ(f.weights.mapped, 0);
  EXPECT_GT(f.weights.vectors, 0);
  EXPECT_EQ(f.total(), f.weights.packed + f.weights.vectors +
                           model::kv_bytes(weights.config, KvType::kI8, 8192, kFitChunk) +
                           model::activation_bytes(weights, KvType::kI8, kFitChunk, 1) +
                           30'000'000 + kProgramBytes);
  // More threads work in more memory, and nothing else changes.
  input.threads = 8;
  const Fit wide = fit_model(weights, 30'000'000, input);
  EXPECT_GT(wide.activations, f.activations);
  EXPECT_EQ(wide.total() - f.total(), wide.activations - f.activations);

  model::Model shape;
  shape.weights = weights;
  EXPECT_DOUBLE_EQ(f.speed_limit,
                   40e9 / static_cast<double>(decode_bytes(shape, KvType::kI8, 8191)));
  // A token reads every matrix once (the table is the head's too), and the keys and values.
  const double step = matrices + static_cast<double>(f.kv.total());
  EXPECT_NEAR(40e9 / f.speed_limit, step, 0.02 * step);
  EXPECT_DOUBLE_EQ(f.speed(), kShareOfBandwidth * f.speed_limit);
}

TEST(Fit, TheLongestContextIsTheLastThatFits) {
  const model::Weights weights = q4_0_weights("12B");
  const FitInput input = input_of(int64_t{9'000'000'000}, 1024);
  const Fit f = fit_model(weights, 30'000'000, input);
  ASSERT_TRUE(f.fits);
  ASSERT_LT(f.longest_context, weights.config.max_seq_len);
  const auto fits = [&](int64_t context) {
    return fit_model(weights, 30'000'000, input_of(input.memory, context)).fits;
  };
  EXPECT_TRUE(fits(f.longest_context));
  EXPECT_FALSE(fits(f.longest_context + 1));
  const Fit longest = fit_model(weights, 30'000'000, input_of(input.memory, f.longest_context));
  EXPECT_LE(longest.total(), input.memory);
}

TEST(Fit, WeightsThatAreTooLargeFitNoContext) {
  const model::Weights weights = q4_0_weights("12B");
  const int64_t packed = model::weight_memory(weights).packed;
  const Fit f = fit_model(weights, 0, input_of(packed, 1));
  EXPECT_EQ(f.longest_context, 0);
  EXPECT_FALSE(f.fits);
  // `carat run` would leave such weights in the file: a tenth must stay free.
  EXPECT_FALSE(fit_model(weights, 0, input_of(packed / 9 * 10 - 100, 1)).fits);
}

TEST(Fit, AContextThatTheModelDoesNotTakeDoesNotFit) {
  const model::Weights weights = q4_0_weights("E2B");
  const int64_t most = weights.config.max_seq_len;
  EXPECT_TRUE(fit_model(weights, 0, input_of(int64_t{1} << 40, most)).fits);
  const Fit f = fit_model(weights, 0, input_of(int64_t{1} << 40, most + 1));
  EXPECT_FALSE(f.fits);
  EXPECT_EQ(f.context, most);
  EXPECT_EQ(f.max_context, most);
  EXPECT_EQ(f.longest_context, most);
}

Fit made(const char* size, const char* kind, int64_t parameters, bool fits, double speed) {
  Fit f;
  f.size = size;
  f.kind = kind;
  f.parameters = parameters;
  f.fits = fits;
  f.context = f.longest_context = 100;
  f.speed_limit = speed / kShareOfBandwidth;
  return f;
}

TEST(Recommendation, IsTheLargestThatIsFastEnough) {
  std::vector<Fit> fits = {
      made("E2B", "hf-bf16", 5, true, 9), made("E2B", "gguf-q4_0", 5, true, 30),
      made("12B", "gguf-q4_0", 12, true, 7), made("12B", "gguf-q8_0", 12, true, 6),
      made("31B", "gguf-q4_0", 31, false, 8)};
  EXPECT_EQ(recommended(fits)->size, "12B");
  EXPECT_EQ(recommended(fits)->kind, "gguf-q4_0");
  fits[2].speed_limit = 1;
  EXPECT_EQ(recommended(fits)->size, "E2B");
  EXPECT_EQ(recommended(fits)->kind, "gguf-q4_0");
  fits[1].fits = false;
  EXPECT_EQ(recommended(fits)->kind, "hf-bf16");  // the fastest of what is left
  const FitInput input = input_of(1000, 100);
  EXPECT_NE(recommendation(fits, input).find("Take E2B as hf-bf16"), std::string::npos);
  for (Fit& f : fits) f.fits = false;
  EXPECT_FALSE(recommended(fits));
  EXPECT_NE(recommendation(fits, input).find("shorter"), std::string::npos);
  for (Fit& f : fits) f.longest_context = 0;
  EXPECT_NE(recommendation(fits, input).find("weights"), std::string::npos);
}

TEST(Drafters, HaveTheirPublishedSizes) {
  // docs/formats.md: the file for 31B has 939,042,560 bytes, its header included.
  const int64_t large = drafter_bytes(model::config_of_size("31B"));
  EXPECT_LT(large, 939'042'560);
  EXPECT_GT(large, 939'042'560 - 20'000);
  EXPECT_EQ(drafter_bytes(model::config_of_size("tiny")), 0);
}

TEST(KeptPrefixes, AreWindowsAtADistance) {
  const model::Config e2b = model::config_of_size("E2B");
  const model::KvLayout layout(e2b, KvType::kI8);
  EXPECT_EQ(kept_prefix_bytes(e2b, KvType::kI8, 1024), 0);  // the first is at 1152
  // The point at 1152 holds positions 641 to 1151: 8 pages, all before the end's own.
  EXPECT_EQ(kept_prefix_bytes(e2b, KvType::kI8, 2048), 8 * layout.local_bytes);
  EXPECT_GT(kept_prefix_bytes(e2b, KvType::kI8, 8192), 3 * 8 * layout.local_bytes);
}

TEST(ParseTokens, KnowsThousands) {
  EXPECT_EQ(parse_tokens("4096", "--c"), 4096);
  EXPECT_EQ(parse_tokens("32k", "--c"), 32768);
  EXPECT_EQ(parse_tokens("1K", "--c"), 1024);
  for (const char* bad : {"", "k", "0", "-1", "1.5k", "3M", "99999999999", "32 k"}) {
    EXPECT_THROW((void)parse_tokens(bad, "--c"), UsageError) << bad;
  }
}

}  // namespace
}  // namespace carat::app
