#include "model/footprint.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/thread_pool.h"
#include "kernels/cpu/cpu_ops.h"
#include "model/advance.h"
#include "model/kv_cache.h"
#include "model/pack.h"
#include "model/testing/random_model.h"

namespace carat::model {
namespace {

using kernels::KvType;

Weights of_type(const char* size, DType matrix) {
  return weights_of_shape(config_of_size(size), [&](TensorRef ref) {
    return StoredType{row_of(ref.kind).cls == TensorClass::kKeep ? DType::kF32 : matrix};
  });
}

TEST(Footprint, WeightsAreCountedOnceEach) {
  for (const char* size : {"E2B", "12B", "26B-A4B"}) {
    const Config config = config_of_size(size);
    const Weights weights = of_type(size, DType::kBF16);
    const WeightMemory m = weight_memory(weights);
    int64_t keep = 0;  // elements that are F32 here: of norms, scalars and routers
    for (const kernels::Weight& w : weights.all) {
      if (w.dtype == DType::kF32) keep += w.count * w.rows * w.cols;
    }
    EXPECT_EQ(m.packed, 0);
    EXPECT_EQ(m.in_file,
              config.has_ple() ? config.ple_vocab_size * config.n_layers * config.ple_dim * 2 : 0);
    EXPECT_EQ(m.resident() + m.in_file, 2 * (parameter_count(config) - keep) + 4 * keep) << size;
  }
}

TEST(Footprint, BlocksArePackedIntoWholePages) {
  const Config config = config_of_size("12B");
  const WeightMemory m = weight_memory(of_type("12B", DType::kQ4_0));
  int64_t blocks = 0;
  for (const TensorRef ref : required_tensors(config)) {
    if (row_of(ref.kind).cls == TensorClass::kKeep) continue;
    blocks += *byte_count(DType::kQ4_0, shape_of(config, ref));
  }
  EXPECT_GE(m.packed, blocks);  // shapes of whole tiles: only the last page is not full
  EXPECT_LT(m.packed, blocks + (int64_t{2} << 20));
  EXPECT_EQ(m.packed % (int64_t{2} << 20), 0);
  EXPECT_EQ(m.mapped, 0);
  EXPECT_EQ(m.in_file, 0);
}

TEST(Footprint, ASeparateOutputMatrixLeavesTheEmbeddingInTheFile) {
  Config config = config_of_size("E2B");
  config.tied_embeddings = false;
  const Weights weights =
      weights_of_shape(config, [](TensorRef) { return StoredType{DType::kF16}; });
  const int64_t table = config.vocab_size * config.dim * 2;
  const int64_t per_layer = config.ple_vocab_size * config.n_layers * config.ple_dim * 2;
  EXPECT_EQ(weight_memory(weights).in_file, table + per_layer);
}

TEST(Footprint, KeysAndValuesByKindOfLayer) {
  // formats.md 2.2: 12 local layers of one head of 256, 3 global ones of 512, in 16 bits.
  const Config e2b = config_of_size("E2B");
  const KvMemory m = kv_memory(e2b, KvType::kF16, 32768, 512);
  EXPECT_EQ(m.global, int64_t{32768} * 3 * 512 * 2 * 2);
  EXPECT_EQ(m.local, int64_t{(511 + 512 + 63) / 64 + 1} * 64 * 12 * 256 * 2 * 2);
  EXPECT_EQ(m.total(), kv_bytes(e2b, KvType::kF16, 32768, 512));
  // The window is as much of a short sequence as there is.
  EXPECT_EQ(kv_memory(e2b, KvType::kF16, 64, 512).local, int64_t{64} * 12 * 256 * 2 * 2);
  // Twice the text adds to global layers only.
  EXPECT_EQ(kv_memory(e2b, KvType::kF16, 65536, 512).local, m.local);
}

TEST(Footprint, CodesAreTilesWithTheirScales) {
  const Config config = config_of_size("12B");
  const auto memory = [&](DType dtype, int64_t scale_columns) {
    return weight_memory(weights_of_shape(config, [&](TensorRef ref) -> StoredType {
      if (row_of(ref.kind).cls == TensorClass::kKeep) return {};
      return {dtype, scale_columns, DType::kBF16};
    }));
  };
  // 4 bits with a scale per 32 are read as Q4_0.
  EXPECT_EQ(memory(DType::kC4, 32).packed, memory(DType::kQ4_0, 0).packed);
  EXPECT_EQ(memory(DType::kC4, 32).mapped, 0);
  // One float per row beside the codes: a stored type of scales does not matter.
  Config mobile = config_of_size("E2B");
  mobile.tied_embeddings = false;
  int64_t bytes = 0;
  const Weights weights = weights_of_shape(mobile, [&](TensorRef ref) -> StoredType {
    if (row_of(ref.kind).cls == TensorClass::kKeep) return {};
    const Shape shape = shape_of(mobile, ref);
    const bool looked_up =
        ref.kind == TensorKind::kPleTable || ref.kind == TensorKind::kTokenEmbedding;
    if (!looked_up) bytes += shape[0] * (shape[1] / 4 + 4);
    return {DType::kC2, shape.back(), DType::kBF16};
  });
  EXPECT_GE(weight_memory(weights).packed, bytes);
  EXPECT_LT(weight_memory(weights).packed, bytes + (int64_t{3} << 20));
}

// What the forward pass on CpuOps really takes.
int64_t measured_activations(const char* size, DType dtype, KvType kv, int64_t rows) {
  ThreadPool pool(1);
  const Weights weights = testing::random_weights(config_of_size(size), dtype, dtype);
  kernels::CpuOps ops(pool);
  KvSequence sequence(weights.config, kv, KvPagePool::create(int64_t{1} << 30));
  const std::vector<int32_t> tokens(static_cast<size_t>(rows), 1);
  const Chunk chunk{&sequence, tokens, Chunk::Wanted::kLast};
  const kernels::Value logits = advance(weights, ops, std::span(&chunk, 1));
  return ops.bytes_in_use() + ops.bytes_at_rest();
}

TEST(Footprint, ActivationsAreThoseOfTheForwardPass) {
  constexpr int64_t kRows = 300;
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    for (const DType dtype : {DType::kF32, DType::kQ8_0}) {
      for (const KvType kv : {KvType::kI8, KvType::kF16, KvType::kI4R}) {
        const Config config = config_of_size(size);
        const Weights shapes =
            weights_of_shape(config, [&](TensorRef) { return StoredType{dtype}; });
        // Neither the logits that a session copies nor sines and cosines are in CpuOps' buffers.
        const int64_t elsewhere =
            4 * config.vocab_size + 6 * kRows * config.head_dim_global / 2 * 8;
        const auto predicted =
            static_cast<double>(activation_bytes(shapes, kv, kRows, 1) - elsewhere);
        const auto measured = static_cast<double>(measured_activations(size, dtype, kv, kRows));
        EXPECT_NEAR(predicted / measured, 1, 0.05)
            << size << " " << name_of(dtype) << " " << static_cast<int>(kv);
      }
    }
  }
}

}  // namespace
}  // namespace carat::model
