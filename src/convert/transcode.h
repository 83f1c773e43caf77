// One tensor's elements from a file, in another type, as a stream of byte windows.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/thread_pool.h"
#include "convert/lattice_stats.h"
#include "convert/loss.h"
#include "io/tensor_source.h"
#include "kernels/weight.h"
#include "model/stored.h"
#include "tensor/dtype.h"

namespace carat::convert {

// How much the errors of each column count: [matrices, columns], for matrices of `rows` rows one
// after another, over again where the tensor has more.
struct ColumnWeights {
  std::vector<float> values;
  int64_t matrices = 1, rows = 0;
};

// Where a tensor's elements lie. Does not own the files.
struct SourceTensor {
  const RandomAccessFile* file = nullptr;
  int64_t offset = 0;
  DType dtype = DType::kF32;  // C2, C4, C8: codes
  int64_t elements = 0;
  int64_t columns = 0;
  std::string name;            // for errors
  kernels::CodeScales scales;  // of codes: [elements / scales.columns] one after another
  // 4-bit codes with a scale per 32 are read as they were before an exporter made their scales
  // 8/7.5 too large (scale_shift.h).
  bool undo_shift = false;
  std::shared_ptr<const ColumnWeights> column_weights;  // null: all count alike

  int64_t bytes() const { return row_bytes(dtype, elements); }  // without scales
};

SourceTensor source_tensor(const io::TensorSource& source, const io::TensorEntry& entry);
SourceTensor source_tensor(const io::TensorSource& source, const model::StoredTensor& stored);

bool is_float(DType dtype);  // F32, F16 or BF16

// How many of n values are still the source's: bit for bit after rounding to bfloat16 where the
// source value is a bfloat16 number, else as they are.
int64_t count_kept(const float* source, const float* written, int64_t n);

// What became of a tensor's weights.
struct Findings {
  int64_t weights = 0;
  int64_t weights_bit_exact = 0;  // as TensorReport's
  LatticeStats lattice;           // if it was judged
  // Of what was written otherwise than as Q4_0 (there: `lattice`). Zero where nothing changed.
  ErrorSums error;
  // Of what was written as codes: groups of weights that share a scale. Exact: every weight is.
  // Rounded scale: the codes are the source's, or its lattice's, and only the scale is rounded.
  int64_t groups = 0, groups_exact = 0, groups_rounded_scale = 0;

  void add(const Findings& other);
};

struct TranscodeRequest {
  DType to = DType::kF32;
  bool judge = false;  // look for the lattice even if `to` is not Q4_0
  // Gets the target's bytes in order; on the caller's thread.
  std::function<void(std::span<const std::byte>)> sink;
  // Asked after each window with the findings so far; false ends the stream early. May be empty.
  std::function<bool(const Findings& so_far)> keep_going;
  // Source bytes of each window done. May be empty.
  std::function<void(int64_t bytes)> advance;
};

// Reads with the file's own handle (nothing becomes resident), works on all threads of the pool.
// Results do not depend on the number of threads. Not reentrant.
class Transcoder {
 public:
  // `stop` (may be null) is looked at between windows: set, Interrupted is thrown.
  explicit Transcoder(ThreadPool& pool, const std::atomic<bool>* stop = nullptr);
  ~Transcoder();

  // False if keep_going ended it. Without a sink the tensor is only judged. Throws Error naming the
  // tensor: it cannot be read, decoded, or its values do not fit the type.
  bool run(const SourceTensor& tensor, const TranscodeRequest& request, Findings* findings);

  // Judges `spans` stretches of 64 blocks, evenly spread over a float tensor of whole blocks; all
  // of it if it is no larger.
  LatticeStats sample(const SourceTensor& tensor, int64_t spans);

  // Decodes elements [begin, begin + n) of a tensor: code * scale for codes. `begin` and n are
  // whole blocks of 256, or n reaches to the end. Throws Error if they cannot be read or decoded,
  // or a scale is not finite.
  static void decode(const SourceTensor& tensor, int64_t begin, int64_t n,
                     std::vector<std::byte>& raw, float* out);

  // The parts of a tensor of codes. `begin` and n: whole bytes. Scales [begin, begin + n) of all.
  static void read_codes(const SourceTensor& tensor, int64_t begin, int64_t n,
                         std::vector<std::byte>& raw, int8_t* out);
  static void read_scales(const SourceTensor& tensor, int64_t begin, int64_t n,
                          std::vector<std::byte>& raw, float* out);

  static constexpr int64_t kChunk = int64_t{1} << 18;  // elements that one thread takes

 private:
  struct Lane;
  struct Job;
  void chunk(const Job& job, int64_t index, Lane& lane, std::byte* out, Findings& findings) const;

  ThreadPool& pool_;
  const std::atomic<bool>* stop_;
  std::vector<Lane> lanes_;        // per thread
  std::vector<std::byte> window_;  // target bytes of a window
  std::vector<Findings> parts_;    // per chunk of a window
};

}  // namespace carat::convert
