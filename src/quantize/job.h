// What a method is given to work on: the source, the types of the target, the text, and the place
// where it leaves what it encoded.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "io/imatrix_file.h"
#include "kernels/cpu/table.h"
#include "model/load.h"
#include "model/tensors.h"
#include "quantize/encoded_store.h"
#include "quantize/source_rows.h"

namespace carat::quantize {

// One matrix of the target. Norms, scalars and routers are not listed: nobody rounds them.
struct MatrixPlan {
  model::TensorRef ref{model::TensorKind::kCount, -1};
  std::string name;  // in GGUF files
  DType dtype = DType::kF32;
  Shape shape;
};

struct Job {
  const model::Model& source;                    // loaded to compute with; never changed
  const SourceRows& rows;                        // its weights as floats
  std::vector<MatrixPlan> matrices;              // in the target's order
  std::span<const std::vector<int32_t>> chunks;  // of the text, <bos> before each
  const io::Imatrix* imatrix = nullptr;          // may be null
  EncodedStore& store;
  int64_t memory = 0;  // bytes that what is kept of the text may take
  ThreadPool& pool;
  const kernels::KernelTable& table;
  std::function<void(int64_t done, int64_t total, const std::string& what)> progress;
  const std::atomic<bool>* stop = nullptr;

  const MatrixPlan* find(model::TensorRef ref) const;
  void check_stop() const;  // throws Interrupted
};

// What a method did to one matrix.
struct MatrixResult {
  std::string name, method;
  double output_error = -1;    // as MatrixReport's
  double weighted_error = -1;  // filled when all is done
};

}  // namespace carat::quantize
